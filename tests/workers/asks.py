"""A worker that asks people, and writes down what it is told.

A message is JSON: `ask`, the questions that it asks all at once. Whatever else it is told is a line of JSON in the file WITNESS. The answer consists of
those to its questions. It ends a turn that is cancelled with an error.
"""

import json
import os
import sys

WITNESS = os.environ["WITNESS"]


def say(kind, **fields):
    sys.stdout.write(json.dumps({"type": kind, **fields}) + "\n")
    sys.stdout.flush()


def hear():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    line = json.loads(line)
    if line["type"] == "shutdown":
        sys.exit(0)
    return line


def witness(line):
    file = os.open(WITNESS, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o666)
    os.write(file, (json.dumps(line) + "\n").encode())
    os.close(file)


turns = {}

say("ready")
while True:
    line = hear()
    message = line.get("messageId")
    if line["type"] == "chat":
        asked = json.loads(line["message"])["ask"]
        turns[message] = ([question["requestId"] for question in asked], {})
        for question in asked:
            say("question", messageId=message, **question)
    else:
        witness(line)
    if message not in turns:
        continue
    ids, answers = turns[message]
    if line["type"] == "cancel":
        del turns[message]
        say("error", messageId=message, error="cancelled")
        continue
    if line["type"] == "answer":
        answers[line["requestId"]] = line.get("error") or line["text"]
    if len(answers) == len(ids):
        del turns[message]
        say("chat_done", messageId=message, response=" ".join(answers[id] for id in ids))
