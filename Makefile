# What developers run and CI runs: the same targets.

CARGO ?= cargo
# where cargo puts what it builds
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
CLIENTS := tests/clients
VENV := $(CLIENTS)/.venv
NODE_MODULES := $(CLIENTS)/node_modules/.package-lock.json

.PHONY: help fmt fmt-check lint doc test test-rust test-clients test-conformance tools clean-clients \
	bench bench-peers bench-instructions bench-scale soak bench-build hostile fuzz

help:
	@echo "make fmt    format everything"
	@echo "make lint   clippy, warnings are errors"
	@echo "make test   everything that must hold: format, lints, Rust tests, real clients, Autobahn"
	@echo "make hostile  attacks by crowds on the optimized binary, some minutes; make test has small ones"
	@echo "make fuzz   random input for every parser, a minute each; SECONDS=60, ONLY=frames for one of them"
	@echo "make doc    the API documentation, warnings are errors"
	@echo "make bench  Wellhead beside the least that it could cost, some 17 minutes; BENCH=quick, some 3"
	@echo "make bench-peers  install uWebSockets.js (npm, 270 MB), which make bench then measures beside Wellhead"
	@echo "make bench-instructions  user instructions for a delivery and for a push; needs valgrind"
	@echo "make bench-scale  how cost grows with sockets, channels, subscriptions and slaves, some 6 minutes"
	@echo "make soak   churn, then see whether everything is given back; MINUTES=10"

fmt:
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

# one after the other: they share two cores and a target folder
test:
	$(MAKE) tools
	$(MAKE) fmt-check
	$(MAKE) lint
	$(MAKE) test-rust
	$(MAKE) test-clients
	$(MAKE) test-conformance

# unit tests, golden files, property tests, and tests/it against the real binary; builds the echo server, too
test-rust:
	$(CARGO) test --locked --workspace

# the gusher browser client, the libraries of Pusher and Laravel, headless Chromium, the examples
test-clients: $(NODE_MODULES) $(VENV)/installed
	$(CARGO) test --locked --workspace --no-run
	cd $(CLIENTS) && WELLHEAD_BIN="$(TARGET)/debug/wellhead" PYTHON="$(CURDIR)/$(VENV)/bin/python" \
		node --test --test-reporter=tap

# Autobahn's cases against the same socket layer
test-conformance: $(VENV)/installed
	$(CARGO) test --locked --workspace --no-run
	$(VENV)/bin/python $(CLIENTS)/conformance.py $(TARGET)/debug/examples/echo

# the attacks of tests/it/attacks at full size, one after the other: some measure the server that they attack
hostile:
	$(CARGO) build --locked --release
	WELLHEAD_ATTACKS=full WELLHEAD_BIN="$(TARGET)/release/wellhead" \
		$(CARGO) test --locked --test it -- attacks:: --test-threads=1 --nocapture

# Coverage counters need no nightly toolchain; AddressSanitizer does: SANITIZER=address CARGO="cargo +nightly".
# The fuzzer shares the server's lock file, so that it tries what is shipped.
SECONDS ?= 60
SANITIZER ?= none
fuzz:
	$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	cp Cargo.lock fuzz/Cargo.lock
	python3 fuzz/seeds.py
	cd fuzz && $(CARGO) fuzz build --sanitizer $(SANITIZER) --debug-assertions
	cd fuzz && for target in $(or $(ONLY),$$($(CARGO) fuzz list)); do \
		$(CARGO) fuzz run --sanitizer $(SANITIZER) --debug-assertions $$target -- \
			-max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 || exit 1; \
	done

# Debian packages that are missing; only root can install them
tools:
	sh $(CLIENTS)/tools.sh

$(NODE_MODULES): $(CLIENTS)/package.json $(CLIENTS)/package-lock.json
	cd $(CLIENTS) && npm ci
	touch $@

$(VENV)/installed: $(CLIENTS)/requirements.txt
	python3 -m venv $(VENV) || /usr/bin/python3 -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

clean-clients:
	rm -rf $(VENV) $(CLIENTS)/node_modules

# BENCH=quick for a short run; ONLY=fanout for some workloads, ONLY=list to see their names;
# PEER="name=…,protocol=pusher,ws=127.0.0.1:6001,http=127.0.0.1:6001,pid=…,id=…,key=…,secret=…" for one more server
BENCH ?= full
MINUTES ?= 10

bench-build:
	$(CARGO) build --locked --release
	$(CARGO) build --locked --release --package wellhead-bench

# who takes part where it is installed; Nchan comes with nginx from the distribution
bench-peers: bench/uws/node_modules/.package-lock.json

bench/uws/node_modules/.package-lock.json: bench/uws/package.json bench/uws/package-lock.json
	cd bench/uws && npm ci --ignore-scripts

# the table is printed, and stands with every figure in target/bench
bench: bench-build
	$(TARGET)/release/wellhead-bench run $(if $(filter quick,$(BENCH)),--quick) \
		$(if $(filter list,$(ONLY)),--list,$(if $(ONLY),--only $(ONLY))) $(if $(PEER),--peer "$(PEER)")

# the tables are printed, and stand in target/bench/scale.md
bench-scale: bench-build
	$(TARGET)/release/wellhead-bench scale $(if $(filter quick,$(BENCH)),--quick) $(if $(ONLY),--only $(ONLY))

bench-instructions: bench-build
	$(TARGET)/release/wellhead-bench instructions

soak: bench-build
	$(TARGET)/release/wellhead-bench soak --minutes $(MINUTES)
