"""A worker that uses everything in the library, as plain functions; `commands_async.py` and `commands.rs` are the same.

    say WORD…       streams the words       ask AGENT TEXT      answers with what that agent says
    history         the texts before        number              the number of the turn
    crash           stores a step, and dies; the next attempt answers with the pid of the first one, and its own
    retry           stores a step, and asks for another attempt at once
    fail WHY        fails                   wait                waits until it is cancelled
    busy SECONDS    reports progress        print TEXT          prints, and lets a child do the same
"""

import os
import subprocess
import time

from mozart_worker import Retry, Turn, Worker


def answer(turn: Turn) -> "str | None":
    command, *words = turn.text.split()
    if command == "say":
        for word in words:
            turn.say(word)
        return None
    if command == "ask":
        return turn.ask(words[0], " ".join(words[1:]))
    if command == "history":
        texts, page = [], turn.history(2)
        while True:
            texts += [past.message for past in page.turns]
            if page.next is None:
                return ",".join(texts)
            page = turn.history(2, before=page.next)
    if command == "number":
        return str(turn.number)
    if command == "crash":
        first = turn.step("pid", os.getpid)
        if first == os.getpid():
            os._exit(1)
        return f"{first} {os.getpid()}"
    if command == "retry":
        if "tried" in turn.steps:
            return "at last"
        turn.step("tried", lambda: True)
        raise Retry("not yet", after=0.05)
    if command == "fail":
        raise RuntimeError(" ".join(words))
    if command == "wait":
        turn.say("waiting")
        while True:
            turn.sleep(60)
    if command == "busy":
        end = time.monotonic() + float(words[0])
        while time.monotonic() < end:
            turn.progress()
            turn.sleep(0.1)
        return "done"
    print("printed", *words)
    subprocess.run(["echo", "by a child", *words], check=True)
    return "printed"


Worker(answer).run()
