"""Print what is pushed: python3 subscribe.py [CHANNEL...]

Needs the package `websockets`, version 13 or later.
"""

import json
import os
import sys
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from websockets.sync.client import connect

SLAVE = os.environ.get("WELLHEAD_SLAVE", "http://127.0.0.1:8888")
APP = os.environ.get("WELLHEAD_APP", "demo")


def token(jwt: str) -> str:
    """Exchange a JWT for a token that is good for a minute."""
    with urlopen(Request(f"{SLAVE}/gcs/auth", urlencode({"jwt": jwt}).encode())) as answer:
        return json.load(answer)["token"]


def main() -> None:
    jwt = os.environ.get("WELLHEAD_JWT")
    if not jwt:
        sys.exit("WELLHEAD_JWT is not set: a server in development mode prints one")
    channels = sys.argv[1:] or ["news"]
    url = f"ws{SLAVE.removeprefix('http')}/gcs/ws/{quote(APP, safe='')}?{urlencode({'token': token(jwt)})}"
    with connect(url, max_size=None) as socket:
        for channel in channels:
            socket.send(json.dumps({"event": "gusher.subscribe", "data": {"channel": channel}}))
        for text in socket:
            message = json.loads(text)
            # what is pushed to a user or a socket comes without anything around it: any JSON
            if not isinstance(message, dict):
                message = {}
            if message.get("event") == "gusher.subscribe_succeeded":
                print("subscribed to", message["data"]["channel"], flush=True)
            elif message.get("event") == "gusher.subscribe_error":
                print("not allowed:", message["data"]["channel"], flush=True)
            elif {"channel", "event", "data"} <= message.keys():
                print(message["channel"], message["event"], json.dumps(message["data"]), flush=True)
            else:
                print("(to you)", text, flush=True)


if __name__ == "__main__":
    main()
