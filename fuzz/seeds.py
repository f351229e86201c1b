"""What the fuzzer begins with: the golden files, a request or a talk to a file, and what stands in seeds/ by hand."""

import json
import pathlib
import shutil

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden"


def seeds(target, texts):
    """Write each of `texts` to a file of the corpus of `target`, beside what the fuzzer has found there before."""
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"golden-{number:03}").write_bytes(text.encode())
    for seed in (HERE / "seeds" / target).glob("*"):
        shutil.copy(seed, folder)


def cases(dialect, pattern):
    for file in sorted((GOLDEN / dialect).glob(pattern)):
        yield from json.loads(file.read_text())


def request(case):
    """A golden request as `Request::read` takes it; the signature is made by the target."""
    request = case["request"]
    own = ("auth_", "body_md5=", "@AUTH@")
    query = "&".join(pair for pair in request.get("query", "").split("&") if pair and not pair.startswith(own))
    target = request["path"] + ("?" + query if query else "")
    kind = request.get("headers", {}).get("content-type", "")
    return f"{request['method']} {target}\n{kind}\n{request.get('body', '')}"


seeds("signed_api", map(request, cases("pusher", "http_*.json")))
seeds("talks", ("\n".join(step["says"] for step in talk["steps"]) for talk in cases("pusher", "talks.json")))
# the byte before a message: the serializer, and that joins are permitted
seeds("phoenix", ("\n".join(chr(ord("4") + talk["serializer"] - 1) + step["says"] for step in talk["steps"]) for talk in cases("pushex", "talks.json")))
seeds("api", map(request, [*cases("gusher", "http_*.json"), *cases("pushex", "http.json")]))
seeds("conveyor", ("\n".join(step["says"] for step in talk["steps"]) for talk in cases("conveyor", "talks.json")))
seeds("settings", [(HERE.parent / "config.toml").read_text()])
for target in ("chunks", "frames", "heads", "node_messages"):
    seeds(target, [])
