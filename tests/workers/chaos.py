"""The worker of the chaos campaign. Standard library only.

A message is `<milliseconds> <pieces> <text>`: the answer is the agent's name and the message backwards, in so many pieces over
that time. Each turn that begins is written down in `$WITNESS/<agent>` as `<message> <pid> <incarnation> <began> <born>`, the times in
nanoseconds on the machine's monotonic clock: a witness that the checker believes more than the shim.
"""

import json
import os
import sys
import threading
import time

born = time.monotonic_ns()
output = threading.Lock()


def send(kind, **fields):
    line = json.dumps({"type": kind, **fields}) + "\n"
    with output:
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except BrokenPipeError:
            os._exit(0)


def turn(agent, line):
    message, text = line["messageId"], line["message"]
    milliseconds, pieces, _ = text.split(" ", 2)
    answer, pieces = f"{agent}: {text[::-1]}", int(pieces)
    size = -(-len(answer) // pieces)
    for start in range(0, len(answer), size):
        send("event", messageId=message, event={"type": "text", "text": answer[start : start + size]})
        time.sleep(int(milliseconds) / 1000 / pieces)
    send("chat_done", messageId=message)


def main():
    send("ready")
    agent = ""
    for raw in sys.stdin:
        line = json.loads(raw)
        if line["type"] == "init":
            agent, incarnation = line["agent"]["name"], line["incarnation"]
            witness = os.open(f"{os.environ['WITNESS']}/{agent}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        elif line["type"] == "chat":
            # One write: lines of two incarnations do not mix.
            note = f"{line['messageId']} {os.getpid()} {incarnation} {time.monotonic_ns()} {born}\n"
            os.write(witness, note.encode())
            send("ack", messageId=line["messageId"])
            threading.Thread(target=turn, args=(agent, line), daemon=True).start()
        elif line["type"] == "shutdown":
            return


main()
