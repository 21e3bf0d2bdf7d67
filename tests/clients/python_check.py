"""Our own Python client against `mozart api`.

python_check.py CHECK URL TOKEN. Says what it found as lines of JSON; a check that fails ends with a traceback.
"""

import asyncio
import inspect
import json
import os
import random
import sys

import mozart_client
from mozart_client import AsyncClient, Client


def say(**found):
    # In one piece: several threads may have something to say.
    os.write(1, (json.dumps(found) + "\n").encode())


class Plain:
    """The client that blocks, with the methods of the other one."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        method = getattr(self.client, name)
        if name in ("stream", "events"):

            async def events(*args, **kwargs):
                for event in method(*args, **kwargs):
                    yield event

            return events

        async def call(*args, **kwargs):
            return method(*args, **kwargs)

        return call


def clients(url, token, **how):
    return Plain(Client(url, token, **how)), AsyncClient(url, token, **how)


async def refused(kind, awaitable):
    try:
        if inspect.isasyncgen(awaitable):
            async for _event in awaitable:
                pass
        else:
            await awaitable
    except mozart_client.MozartError as error:
        assert type(error) is kind, (kind, error)
        assert error.what and error.cause and error.code == kind.code, error
        return error
    raise AssertionError(f"{kind} is missing")


async def everything(url, token):
    for client in clients(url, token, patience=5):
        assert [(agent.name, agent.state) for agent in await client.agents()] == [("a", "running")]

        sent = await client.send("a", "say hi", conversation="c1")
        assert sent.status == "pending" and not sent.is_final, sent
        done = await client.wait(sent.message_id, timeout=30)
        assert (done.status, done.text()) == ("completed", "hi"), done
        again = await client.send("a", "say hi", conversation="c1", message_id=sent.message_id)
        assert again.message_id == sent.message_id, again
        assert await client.ask("a", "say ho", timeout=30) == "ho"

        events = [event async for event in client.stream("a", "count 5")]
        assert "".join(event.text for event in events) == "1 2 3 4 5 ", events
        assert (events[-1].type, events[-1].status, events[-1].response) == ("done", "completed", "1 2 3 4 5 ")
        ids = [event.id for event in events]
        assert len(set(ids)) == len(ids), ids
        # After each of its events the rest follows, and only that.
        for position, event in enumerate(events):
            rest = [one async for one in client.events(event.message_id, after=event.id)]
            assert rest == events[position + 1 :], (event, rest)

        failed = await client.wait((await client.send("a", "fail no")).message_id)
        assert (failed.status, failed.reason) == ("failed", "no"), failed
        error = await refused(mozart_client.FailedError, client.ask("a", "fail no"))
        assert "explain" in error.try_ and error.cause == "no", error
        await refused(mozart_client.NotFoundError, client.send("zz", "x"))
        await refused(mozart_client.NotFoundError, client.message("none-such"))
        await refused(mozart_client.NotFoundError, client.events("none-such"))
        await refused(mozart_client.UsageError, client.send("A b", "x"))
        await refused(mozart_client.ConflictError, client.send("a", "other", message_id=sent.message_id))
        await refused(mozart_client.LimitError, client.send("a", "x" * 1_100_000))
        evil = "hi\r\n\r\ndata: {}\n\nid: 9\n"
        assert await client.ask("a", evil, timeout=30) == evil

        long = await client.send("a", "sleep 60")
        await refused(mozart_client.TimedOutError, client.wait(long.message_id, timeout=0.5))
        assert (await client.cancel(long.message_id)).status == "cancelled"
        await refused(mozart_client.ConflictError, client.cancel(long.message_id))
        assert (await client.wait(long.message_id)).status == "cancelled"

    for client in clients(url, "mozart_x_y", patience=5):
        error = await refused(mozart_client.DeniedError, client.agents())
        assert error.status == 401, error
    for client in clients("http://127.0.0.1:1", token, patience=0.5):
        error = await refused(mozart_client.UnreachableError, client.agents())
        assert "mozart up" in error.try_, error
        await refused(mozart_client.UnreachableError, client.stream("a", "x"))
    for bad in ("127.0.0.1:4141", "ftp://x", "http://x/path"):
        try:
            Client(bad, token)
            raise AssertionError(bad)
        except mozart_client.UsageError:
            pass
    say(done=True)


async def killed(url, token):
    """The server is killed amid two streams: both go on, each event once."""

    async def read(client, text):
        events = []
        async for event in client.stream("a", text, message_id=text.replace(" ", "-").replace(".", "-")):
            events.append(event)
            if len(events) == 8:
                say(amid=text)
        ids = [event.id for event in events]
        assert len(set(ids)) == len(ids), ids
        return "".join(event.text for event in events), events[-1].response

    plain, other = Client(url, token), AsyncClient(url, token)
    first = asyncio.to_thread(lambda: asyncio.run(read(Plain(plain), "count 60 0.05")))
    both = await asyncio.gather(first, read(other, "count 61 0.05"))
    for count, (text, response) in zip((60, 61), both):
        expected = "".join(f"{number} " for number in range(1, count + 1))
        assert text == response == expected, (count, text)
    say(done=True)


async def cut(url, token):
    """Connections are cut again and again, anywhere: the streams go on, each event once."""
    host, port = url.removeprefix("http://").split(":")
    seed = random.randrange(1 << 32)
    chance, cuts = random.Random(seed), 0

    async def relay(reader, writer):
        nonlocal cuts
        server, to_server = await asyncio.open_connection(host, int(port))

        async def forward():
            while data := await reader.read(65536):
                to_server.write(data)

        forwarding = asyncio.ensure_future(forward())
        left = chance.randrange(100, 3000)
        while data := await server.read(min(left, 1000)):
            writer.write(data)
            left -= len(data)
            if left <= 0:
                cuts += 1
                break
        forwarding.cancel()
        for one in (writer, to_server):
            # At once, with what is still under way.
            one.transport.abort()

    relaying = await asyncio.start_server(relay, "127.0.0.1", 0)
    through = f"http://127.0.0.1:{relaying.sockets[0].getsockname()[1]}"

    async def read(client, count):
        events = [event async for event in client.stream("a", f"count {count} 0.01")]
        ids = [event.id for event in events]
        assert len(set(ids)) == len(ids), (seed, ids)
        text = "".join(event.text for event in events)
        assert text == events[-1].response == "".join(f"{number} " for number in range(1, count + 1)), (seed, text)

    plain, other = Client(through, token), AsyncClient(through, token)
    await asyncio.gather(asyncio.to_thread(lambda: asyncio.run(read(Plain(plain), 300))), read(other, 301))
    relaying.close()
    say(done=cuts >= 10, cuts=cuts, seed=seed)


def local(folder):
    client = Client.local(folder)
    say(agents=[agent.name for agent in client.agents()])


if sys.argv[1] == "local":
    local(sys.argv[2])
else:
    asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
