#!/bin/sh
# Installs the Debian packages that the tests need and that are missing. Without root, says which.
set -eu

missing=
need() { # PACKAGE COMMAND...: the package is there if the command succeeds
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
has() { command -v "$1"; }

need gcc has cc
need curl has curl
# Debian keeps it in sbin
need nats-server sh -c 'command -v nats-server || test -x /usr/sbin/nats-server'
# Debian's nginx, too
need nginx-light sh -c 'command -v nginx || test -x /usr/sbin/nginx'
need openssl has openssl
need faketime has faketime
# README and docs are run in a network of their own
need iproute2 sh -c 'command -v ip || test -x /usr/sbin/ip'
need chromium test -x "${CHROMIUM:-/usr/bin/chromium}"
# their side of Pusher's signatures
need php-cli has php
need ruby has ruby
need python3-venv sh -c 'python3 -c "import ensurepip, venv" || /usr/bin/python3 -c "import ensurepip, venv"'
# a Node from elsewhere brings its own npm, and Debian's npm would pull in Debian's Node
if ! has node >/dev/null; then
    missing="$missing nodejs npm"
else
    need npm has npm
fi

check_node() {
    node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || {
        echo "Node 20 or later is needed, this is $(node --version)" >&2
        exit 1
    }
}

if [ -z "$missing" ]; then
    check_node
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "missing Debian packages:$missing (run: apt-get install$missing)" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
apt-get install -y -qq --no-install-recommends $missing </dev/null
check_node
