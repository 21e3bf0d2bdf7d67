"""A worker that stores steps, and writes down what it does.

A message is JSON: `steps` of them, `result` bytes more in each, `pause` after those. Each step's effect is a line in the file WITNESS, `did ID KEY
NONCE`; the nonce is its result. `stored ID KEY` follows once that is confirmed, and at a pause `paused ID KEY`, until there is a file WITNESS.ID.KEY. The answer
consists of all results.
"""

import json
import os
import sys
import time
import uuid

WITNESS = os.environ["WITNESS"]


def witness(*words):
    line = " ".join(words) + "\n"
    file = os.open(WITNESS, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o666)
    os.write(file, line.encode())
    os.close(file)


def say(kind, **fields):
    sys.stdout.write(json.dumps({"type": kind, **fields}) + "\n")
    sys.stdout.flush()


def hear():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def store(message, key, result):
    say("step", messageId=message, key=key, result=result)
    while True:
        line = hear()
        if line["type"] == "step_stored" and line["key"] == key:
            if "error" in line:
                raise RuntimeError(line["error"])
            return line.get("result", result)
        if line["type"] == "shutdown":
            sys.exit(0)


def pause(message, key):
    witness("paused", message, key)
    while not os.path.exists(f"{WITNESS}.{message}.{key}"):
        time.sleep(0.02)


def answer(line):
    message, told = line["messageId"], json.loads(line["message"])
    results = {step["key"]: step["result"] for step in line.get("steps", [])}
    if results:
        witness("got", message, *results)
    for number in range(1, told["steps"] + 1):
        key = f"s{number}"
        if key not in results:
            nonce = uuid.uuid4().hex
            witness("did", message, key, nonce)
            padded = nonce + "x" * told.get("result", 0)
            results[key] = store(message, key, padded)
            witness("stored", message, key)
        if number in told.get("pause", []):
            pause(message, key)
    return " ".join(result[:32] for result in results.values())


say("ready")
while True:
    line = hear()
    if line["type"] == "chat":
        try:
            say("chat_done", messageId=line["messageId"], response=answer(line))
        except RuntimeError as error:
            say("error", messageId=line["messageId"], error=str(error))
    elif line["type"] == "shutdown":
        break
