"""Keeps what it is told in its SANCTUM. Standard library only.

Each message becomes a line of `notes` there; the answer is how many lines there are.
"""

import json
import os
import sys


def send(kind, **fields):
    print(json.dumps({"type": kind, **fields}), flush=True)


def main():
    for raw in sys.stdin:
        line = json.loads(raw)
        if line["type"] == "init":
            notes = os.path.join(line["agent"]["sanctums"][0]["host"], "notes")
            os.makedirs(os.path.dirname(notes), exist_ok=True)
            send("ready")
        elif line["type"] == "chat":
            send("ack", messageId=line["messageId"])
            with open(notes, "a+") as file:
                file.write(line["message"] + "\n")
                file.flush()
                file.seek(0)
                lines = file.read().splitlines()
            event = {"type": "text", "text": str(len(lines))}
            send("event", messageId=line["messageId"], event=event)
            send("chat_done", messageId=line["messageId"])
        elif line["type"] == "shutdown":
            return


main()
