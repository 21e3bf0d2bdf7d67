"""A worker that misbehaves on demand.

If a message consists of these commands, separated by `;`, they are run in order; any other message is echoed.

    count N [SECONDS]   answers in N chunks, SECONDS apart (0.02)
    say TEXT            answers TEXT
    sleep SECONDS       waits, silently
    busy SECONDS        waits, and reports progress
    ask AGENT TEXT      answers with another agent's answer
    question TEXT       answers with what a person answers
    recall              answers with how many turns the conversation had, and their answers
    fail WHY            fails for good           retry WHY           fails, and another attempt may help
    tool NAME           publishes an event that is not text

    crash               exits with 1 at once     crash N%            the same, in N of 100 cases
    crash until N       the same, in incarnations before the Nth
    exit N              exits with N             kill N              dies of signal N
    hang                never ends               stubborn            ignores SIGTERM and `shutdown` from now on
    fork                leaves a child behind that holds stdout open, and exits with 1

    flood N             N chunks as fast as possible
    blob N              N MB without a newline   long N              a text event of N KiB in one line
    nonsense            garbage, invalid, unknown and stranger, in this order
    garbage             text that is not JSON    invalid             bytes that are not UTF-8
    unknown             a protocol line of an unknown type
    stranger            ends a turn that does not exist
    twice               ends its own turn twice

The environment determines how it starts: FLAKY_START=never-ready, `exit N`, `slow SECONDS`, `stubborn`.
"""

import json
import os
import random
import signal
import sys
import threading
import time

from mozart_worker import Retry, Worker

# The library keeps stdout for the protocol while it runs. This is for what is none.
STDOUT = os.dup(1)
STUBBORN = threading.Event()


def write(data):
    while data:
        data = data[os.write(STDOUT, data) :]


def send(kind, **fields):
    """A line of protocol that the library would not send."""
    write(json.dumps({"type": kind, **fields}).encode() + b"\n")


def die(code):
    # Without cleaning up, from any thread.
    os._exit(code)


def wait(turn, seconds, each):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        each()
        turn.sleep(min(left, 0.1))


def count(turn, n, seconds="0.02"):
    for i in range(1, int(n) + 1):
        turn.say(f"{i} ")
        turn.sleep(float(seconds))


def crash(turn, *when):
    if when and when[0].endswith("%"):
        if random.random() * 100 >= float(when[0][:-1]):
            return
    elif when and when[0] == "until":
        if WORKER.incarnation >= int(when[1]):
            return
    print("crashing, as told", file=sys.stderr, flush=True)
    die(1)


def kill(turn, number):
    os.kill(os.getpid(), int(number))


def hang(turn):
    while True:
        time.sleep(3600)


def stubborn(turn):
    STUBBORN.set()
    turn.say("you will not stop me ")


def fork(turn):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
        die(0)
    die(1)


def fail(turn, *why):
    raise RuntimeError(" ".join(why) or "failed, as told")


def retry(turn, *why):
    raise Retry(" ".join(why) or "failed, as told")


def flood(turn, n):
    for i in range(int(n)):
        turn.say(f"{i} ")


def blob(turn, megabytes):
    for _ in range(int(megabytes)):
        write(b"x" * 1_000_000)
    write(b"\n")


def garbage(turn):
    write(b"this is not protocol\n{\"type\":\n[]\nnull\n\n{}\n")


def invalid(turn):
    write(b"\xff\xfe\x80 not UTF-8\n")
    write(b'{"type":"event","event":{"type":"text","text":"\xc3\x28"}}\n')


def unknown(turn):
    send("dance", messageId=turn.message_id)


def stranger(turn):
    send("chat_done", messageId="nobody-knows-me")
    send("ack", messageId="nobody-knows-me")
    send("event", messageId="nobody-knows-me", event={"type": "text", "text": "lost"})


def twice(turn):
    send("chat_done", messageId=turn.message_id)


def nonsense(turn):
    for step in (garbage, invalid, unknown, stranger):
        step(turn)
    turn.say("so much for that ")


COMMANDS = {
    "count": count,
    "say": lambda turn, *words: turn.say(" ".join(words)),
    "sleep": lambda turn, seconds: turn.sleep(float(seconds)),
    "busy": lambda turn, seconds: wait(turn, float(seconds), each=turn.progress),
    "ask": lambda turn, agent, *words: turn.say(turn.ask(agent, " ".join(words))),
    "recall": lambda turn: turn.say(f"{turn.number}: " + ", ".join(past.response or "" for past in reversed(turn.history().turns))),
    "question": lambda turn, *words: turn.say(turn.question(" ".join(words))),
    "tool": lambda turn, name: turn.event({"type": "tool", "name": name}),
    "exit": lambda turn, code: die(int(code)),
    "long": lambda turn, kib: turn.say("x" * (int(kib) * 1024)),
    "crash": crash,
    "kill": kill,
    "hang": hang,
    "stubborn": stubborn,
    "fork": fork,
    "fail": fail,
    "retry": retry,
    "flood": flood,
    "blob": blob,
    "nonsense": nonsense,
    "garbage": garbage,
    "invalid": invalid,
    "unknown": unknown,
    "stranger": stranger,
    "twice": twice,
}


def answer(turn):
    steps = [step.split() for step in turn.text.split(";")]
    if all(step and step[0] in COMMANDS for step in steps):
        for command, *arguments in steps:
            COMMANDS[command](turn, *arguments)
    else:
        turn.say(turn.text)


WORKER = Worker(answer)


def main():
    how, *arguments = os.environ.get("FLAKY_START", "well").split()
    if how == "exit":
        die(int(arguments[0]))
    if how == "slow":
        time.sleep(float(arguments[0]))
    # Only the main thread may set a signal handler, so it is set here and not by `stubborn`.
    signal.signal(signal.SIGTERM, lambda *_: None if STUBBORN.is_set() else die(143))
    if how == "stubborn":
        STUBBORN.set()
    if how == "never-ready":
        for line in sys.stdin:
            if json.loads(line)["type"] == "shutdown":
                break
    else:
        WORKER.run()
    while STUBBORN.is_set():
        time.sleep(3600)


main()
