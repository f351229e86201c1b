"""Python's `pusher` and `pysher` on strings: reads a command a line, each a JSON list, and prints a JSON line for it.

The backend answers with what its library gives or raises; the client tells what reaches it, as it comes.
"""

import json
import os
import sys
import threading

import pusher
import pysher

APP = json.loads(os.environ["PUSHER_APP"])
# the client tells from its own thread and from the library's
LOCK = threading.Lock()


def say(*words):
    with LOCK:
        print(json.dumps(words), flush=True)


def commands():
    for line in sys.stdin:
        yield json.loads(line)


def backend(address):
    host, port = address.split(":")
    library = pusher.Pusher(
        app_id=APP["appId"], key=APP["key"], secret=APP["secret"], host=host, port=int(port), ssl=False
    )
    for method, *arguments in commands():
        try:
            say("ok", getattr(library, method)(*arguments))
        except pusher.errors.PusherError as error:
            say(type(error).__name__, str(error))


def client(address, user):
    host, port = address.split(":")
    # numbers stay numbers, as a Python backend would have them
    user_data = {"user_id": json.loads(user), "user_info": {"name": user}}
    library = pysher.Pusher(
        APP["key"],
        secret=APP["secret"],
        secure=False,
        custom_host=host,
        port=int(port),
        user_data=user_data,
        reconnect_interval=0.05,
        log_level="WARNING",
    )
    for event in ["pusher:connection_established", "pusher:error", "pusher:pong"]:
        library.connection.bind(event, lambda data, event=event: say(event, None, data))
    # the reply to a subscription may come before anything can be bound to its channel
    handle = library.connection.event_handler

    def heard(event, data, channel):
        if event == "pusher_internal:subscription_succeeded":
            say(event, channel, data)
        handle(event, data, channel)

    library.connection.event_handler = heard
    library.connect()
    for command, channel, *words in commands():
        if command == "subscribe":
            joined = library.subscribe(channel)
            for event in words:
                joined.bind(event, lambda data, event=event, channel=channel: say(event, channel, data))
            say("bound", channel, None)
        elif command == "unsubscribe":
            library.unsubscribe(channel)
        elif command == "trigger":
            library.channel(channel).trigger(*words)
    library.disconnect(timeout=5)


if __name__ == "__main__":
    {"backend": backend, "client": client}[sys.argv[1]](*sys.argv[2:])
