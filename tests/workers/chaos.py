"""The worker of the chaos campaign. Standard library only.

A message is `<milliseconds> <pieces> <text>`: the answer is the agent's name and the message backwards, in so many pieces over
that time. Where the text begins with `ask:<agent>`, that agent is asked first, and whatever it answers is as well. Each turn that begins is written down in `$WITNESS/<agent>` as `<message> <pid> <incarnation> <began> <born>`, the times in
nanoseconds on the machine's monotonic clock: a witness that the checker believes more than the shim. A worker of a copied data folder
writes nothing: its turns are those of another fleet.
"""

import json
import os
import sys
import threading
import time

born = time.monotonic_ns()
output = threading.Lock()
answered = {}
# Short: agents that wait for a busy one are busy, and soon all of them would be.
PATIENCE = 2


def send(kind, **fields):
    line = json.dumps({"type": kind, **fields}) + "\n"
    with output:
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except BrokenPipeError:
            os._exit(0)


def ask(message, to):
    # The same in every attempt: then it is the same question.
    request = f"{message}.1"
    answered[request] = threading.Event()
    question = {"requestId": request, "toId": to, "message": "20 1 a question"}
    send("route_request", messageId=message, timeoutMs=PATIENCE * 1000, **question)
    answered[request].wait(PATIENCE + 1)


def turn(agent, line):
    message, text = line["messageId"], line["message"]
    milliseconds, pieces, rest = text.split(" ", 2)
    if rest.startswith("ask:"):
        ask(message, rest.split(" ", 1)[0].removeprefix("ask:"))
    answer, pieces = f"{agent}: {text[::-1]}", int(pieces)
    size = -(-len(answer) // pieces)
    for start in range(0, len(answer), size):
        send("event", messageId=message, event={"type": "text", "text": answer[start : start + size]})
        time.sleep(int(milliseconds) / 1000 / pieces)
    if line["type"] == "route":
        send("route_done", messageId=message, requestId=line["requestId"], response=answer)
    else:
        send("chat_done", messageId=message)


def main():
    send("ready")
    agent = ""
    for raw in sys.stdin:
        line = json.loads(raw)
        if line["type"] == "init":
            agent, incarnation = line["agent"]["name"], line["incarnation"]
            is_copy = "/copy-" in os.environ.get("MOZART_RUN", "")
            notes = os.devnull if is_copy else f"{os.environ['WITNESS']}/{agent}"
            witness = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        elif line["type"] == "route_response":
            answered.setdefault(line["requestId"], threading.Event()).set()
        elif line["type"] in ("chat", "route"):
            # One write: lines of two incarnations do not mix.
            note = f"{line['messageId']} {os.getpid()} {incarnation} {time.monotonic_ns()} {born}\n"
            os.write(witness, note.encode())
            send("ack", messageId=line["messageId"])
            threading.Thread(target=turn, args=(agent, line), daemon=True).start()
        elif line["type"] == "shutdown":
            return


main()
