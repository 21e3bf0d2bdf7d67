"""A worker written for the seed's protocol, and nothing beyond it. It writes every line that it reads to `$SEEN/<agent>.jsonl`,
with the incarnation that its first line names.

    hold            acknowledged, and answered at SIGHUP
    silent          not even acknowledged
    ask AGENT TEXT  answers with what another agent says, asked under the request id `src-req-1`
    anything else   answered with `hi`; a route with `hi source`

SIGUSR1 ends it with exit code 1, SIGUSR2 with 137.
"""

import json
import os
import signal
import sys

SEEN = open(f"{os.environ['SEEN']}/{os.environ['MOZART_AGENT']}.jsonl", "a", buffering=1)
ASKING = {}
HELD = []


def say(kind, **fields):
    print(json.dumps({"type": kind, **fields}), flush=True)


def chat(line):
    identity = {"conversationId": line["conversationId"], "messageId": line["messageId"]}
    words = line["message"].split(" ", 2)
    if words[0] == "silent":
        return
    say("ack", messageId=line["messageId"])
    if words[0] == "hold":
        HELD.append(identity)
        return
    if words[0] == "ask":
        ASKING["src-req-1"] = identity
        say("route_request", requestId="src-req-1", toId=words[1], message=words[2])
        return
    finish(identity, "hi")


def finish(identity, text):
    event = {"type": "text", "text": text}
    say("event", conversationId=identity["conversationId"], event=event)
    say("chat_done", **identity)


def release(*_):
    while HELD:
        finish(HELD.pop(0), "hi")


signal.signal(signal.SIGHUP, release)
signal.signal(signal.SIGUSR1, lambda *_: os._exit(1))
signal.signal(signal.SIGUSR2, lambda *_: os._exit(137))
say("ready")
incarnation = 0
for raw in sys.stdin:
    line = json.loads(raw)
    incarnation = line.get("incarnation", incarnation)
    SEEN.write(json.dumps({"incarnation": incarnation, **line}) + "\n")
    kind = line["type"]
    if kind == "chat":
        chat(line)
    elif kind == "route" and line["message"] != "hold":
        say("route_done", requestId=line["requestId"], response="hi source", messageId=line["messageId"])
    elif kind == "route_response":
        finish(ASKING.pop(line["requestId"]), line.get("response") or line["error"])
