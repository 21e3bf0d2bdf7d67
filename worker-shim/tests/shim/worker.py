"""A worker that does as its messages say, and writes down which ones it was given."""

import json
import os
import sys
import time


def say(**line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def answer(message, what, much):
    if what == "hang":
        say(type="ack", messageId=message)
        return
    if what == "slow":
        time.sleep(float(much))
    if what == "wait":
        while not os.path.exists(os.environ["WITNESS"] + ".go"):
            time.sleep(0.02)
    if what == "flood":
        piece = b"x" * (1 << 20)
        for _ in range(int(much)):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.write(b"\n")
    if what == "ask":
        # Questions to nobody, without reading what comes back.
        count, length = much.split()
        for n in range(int(count)):
            request = f"{n:06}" + "x" * (int(length) - 6)
            say(type="route_request", requestId=request, toId="nobody", message="?", messageId=message)
    if what == "log":
        # So many MiB, in lines.
        for n in range(int(much) * 64):
            sys.stderr.write(f"{n} " + "y" * 16000 + "\n")
    if what == "mute":
        os.close(1)
        return
    if what == "deaf":
        os.close(0)
        say(type="chat_done", messageId=message, response="deaf")
        time.sleep(600)
    if what == "last":
        # No newline, and no time to read it while the worker lives.
        sys.stdout.write(json.dumps({"type": "chat_done", "messageId": message, "response": "last"}))
        sys.stdout.flush()
        os._exit(3)
    say(type="event", messageId=message, event={"type": "text", "text": "did " + what})
    say(type="chat_done", messageId=message)


say(type="ready")
for line in sys.stdin:
    line = json.loads(line)
    if line["type"] == "shutdown":
        break
    if line["type"] == "chat":
        with open(os.environ["WITNESS"], "a") as witness:
            witness.write(line["messageId"] + "\n")
        what, _, much = line["message"].partition(" ")
        answer(line["messageId"], what, much)
