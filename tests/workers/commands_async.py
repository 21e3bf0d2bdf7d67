"""`commands.py` as a coroutine."""

import asyncio
import os
import time

from mozart_worker import AsyncTurn, Retry, Worker


async def answer(turn: AsyncTurn) -> "str | None":
    command, *words = turn.text.split()
    if command == "say":
        for word in words:
            turn.say(word)
        return None
    if command == "ask":
        return await turn.ask(words[0], " ".join(words[1:]))
    if command == "history":
        texts, page = [], await turn.history(2)
        while True:
            texts += [past.message for past in page.turns]
            if page.next is None:
                return ",".join(texts)
            page = await turn.history(2, before=page.next)
    if command == "number":
        return str(turn.number)
    if command == "crash":
        first = await turn.step("pid", os.getpid)
        if first == os.getpid():
            os._exit(1)
        return f"{first} {os.getpid()}"
    if command == "retry":
        if "tried" in turn.steps:
            return "at last"
        await turn.step("tried", lambda: asyncio.sleep(0, True))
        raise Retry("not yet", after=0.05)
    if command == "fail":
        raise RuntimeError(" ".join(words))
    if command == "wait":
        turn.say("waiting")
        await asyncio.Event().wait()
    if command == "busy":
        end = time.monotonic() + float(words[0])
        while time.monotonic() < end:
            turn.progress()
            await asyncio.sleep(0.1)
        return "done"
    print("printed", *words)
    child = await asyncio.create_subprocess_exec("echo", "by a child", *words)
    await child.wait()
    return "printed"


Worker(answer).run()
