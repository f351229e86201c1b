"""Push one event: python3 push.py [CHANNEL [EVENT [DATA]]]

This is the v3 API, JSON; the standard library is enough.
"""

import json
import os
import sys
from urllib.parse import quote
from urllib.request import Request, urlopen

MASTER = os.environ.get("WELLHEAD_MASTER", "http://127.0.0.1:7777")
APP = os.environ.get("WELLHEAD_APP", "demo")
PUSH_KEY = os.environ.get("WELLHEAD_PUSH_KEY")


def push(channel: str, event: str, data: object) -> str:
    """Push to a channel; what the master says."""
    url = f"{MASTER}/v1/apps/{quote(APP, safe='')}/channels/{quote(channel, safe='')}/messages"
    headers = {"Content-Type": "application/json"}
    if PUSH_KEY:
        headers["Authorization"] = f"Bearer {PUSH_KEY}"
    body = json.dumps({"event": event, "data": data}).encode()
    with urlopen(Request(url, body, headers)) as answer:
        return answer.read().decode()


def main() -> None:
    defaults = ["news", "hello", '{"text":"It works"}']
    channel, event, text = (sys.argv[1:4] + defaults[len(sys.argv) - 1 :])[:3]
    try:
        data = json.loads(text)
    except ValueError:
        data = text  # plain text, then
    print(push(channel, event, data))


if __name__ == "__main__":
    main()
