"""Our own Python client against `mozart api`, or against the fleet's NATS server.

python_check.py CHECK URL [LOGIN]: a token, or a file of credentials. Says what it found as lines of JSON; a check that fails ends with a traceback.
"""

import asyncio
import datetime
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


def over_nats(url):
    return url.startswith("nats:")


def made(kind, url, login, **how):
    if over_nats(url):
        return kind(url, creds=login or None, **how)
    return kind(url, login, **how)


def clients(url, login, **how):
    return Plain(made(Client, url, login, **how)), made(AsyncClient, url, login, **how)


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


async def everything(url, token=None):
    for client in clients(url, token, patience=5):
        assert [(agent.name, agent.state) for agent in await client.agents()] == [("a", "running")]

        sent = await client.send("a", "say hi", conversation="c1")
        assert sent.status == "pending" and not sent.is_final, sent
        done = await client.wait(sent.message_id, timeout=30)
        assert (done.status, done.text()) == ("completed", "hi"), done
        again = await client.send("a", "say hi", conversation="c1", message_id=sent.message_id)
        assert again.message_id == sent.message_id, again
        assert await client.ask("a", "say ho", timeout=30) == "ho"

        due = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)
        if over_nats(url):
            await refused(mozart_client.UsageError, client.send("a", "say later", deliver_at=due))
            due -= datetime.timedelta(seconds=3)
            sent = await client.send("a", "say later")
        else:
            sent = await client.send("a", "say later", deliver_at=due)
            assert sent.raw["deliverAt"].startswith(f"{due:%Y-%m-%dT%H:%M:%S}"), sent.raw
        assert sent.status == "pending", sent.raw
        assert (await client.wait(sent.message_id, timeout=30)).text() == "later"
        assert datetime.datetime.now(datetime.timezone.utc) >= due

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

    if over_nats(url):
        await nobody(url)
    else:
        await no_token(url, token)
    for bad in ("127.0.0.1:4141", "ftp://x", "http://x/path", "nats://x/path", "nats://"):
        try:
            Client(bad, "" if over_nats(bad) else "mozart_x_y")
            raise AssertionError(bad)
        except mozart_client.UsageError:
            pass
    say(done=True)


async def no_token(url, token):
    for client in clients(url, "mozart_x_y", patience=5):
        error = await refused(mozart_client.DeniedError, client.agents())
        assert error.status == 401, error
    for client in clients("http://127.0.0.1:1", token, patience=0.5):
        error = await refused(mozart_client.UnreachableError, client.agents())
        assert "mozart up" in error.try_, error
        await refused(mozart_client.UnreachableError, client.stream("a", "x"))


async def nobody(url):
    where = url.rpartition("@")[2]
    for client in clients(f"nats://somebody:else@{where}", None, patience=5):
        error = await refused(mozart_client.DeniedError, client.agents())
        assert "somebody" not in str(error) and where in error.what, error
    for client in clients("nats://127.0.0.1:1", None, patience=0.5):
        error = await refused(mozart_client.UnreachableError, client.agents())
        assert "mozart up" in error.try_, error
        await refused(mozart_client.UnreachableError, client.stream("a", "x"))
    for client in clients(url, None, namespace="another", patience=5):
        await refused(mozart_client.UnreachableError, client.send("a", "x"))


async def once(url):
    """One message, sent by many at once and more than once, is stored once; one that was given up for good has left nothing behind."""
    plain, other = clients(url, None, patience=10)
    sent = await asyncio.gather(*(other.send("a", "say once", message_id="once") for _ in range(20)))
    assert {message.name for message in sent} == {"a/user/once"}, sent
    rivals = await asyncio.gather(*(other.send("a", f"say {n}", message_id="rival") for n in range(20)), return_exceptions=True)
    stored = [one for one in rivals if not isinstance(one, Exception)]
    lost = [one for one in rivals if isinstance(one, mozart_client.ConflictError)]
    assert (len(stored), len(lost)) == (1, 19), rivals
    assert (await plain.wait("a/user/once", timeout=30)).text() == "once"
    # In another conversation it is another message.
    await refused(mozart_client.ConflictError, other.send("a", "say once", message_id="once", conversation="c"))
    # What was cancelled, its worker gives up.
    long = await other.send("a", "sleep 600", conversation="one")
    while (await other.message(long)).status == "pending":
        await asyncio.sleep(0.05)
    assert (await plain.cancel(long)).status == "cancelled"
    assert await other.ask("a", "say next", conversation="one", timeout=30) == "next"
    # One that nobody has started in time ends by itself.
    late = await plain.send("a", "sleep 5", conversation="two")
    expired = await other.send("a", "say late", conversation="two", deadline=0.5)
    assert (await other.wait(expired, timeout=30)).status == "expired", late
    say(done=True)


async def archived(url):
    """A message that has left the journal is there nevertheless, and is not sent again."""
    plain, other = clients(url, None, patience=10)
    for id_ in ("order-7", "0198c0de-0000-7abc-8def-0123456789ab"):
        text = "say " + "x" * 600_000 if id_ == "order-7" else "say short"
        done = await plain.wait(await other.send("a", text, message_id=id_), timeout=30)
        await left_the_journal(url, f"a/user/{id_}")
        for client in (plain, other):
            found = await client.message(f"a/user/{id_}")
            assert (found.text(), found.raw["message"]) == (done.text(), text), found
            assert (await client.message(id_)).name == f"a/user/{id_}"
            assert (await client.send("a", text, message_id=id_)).status == "completed"
            await refused(mozart_client.ConflictError, client.send("a", "say other", message_id=id_))
            await refused(mozart_client.ConflictError, client.send("b", text, message_id=id_))
            await refused(mozart_client.ConflictError, client.cancel(id_))
            last = [event async for event in client.events(id_)][-1]
            assert (last.type, last.response) == ("done", done.text()), last
    say(done=True)


async def left_the_journal(url, name):
    import nats

    nc = await nats.connect(url)
    info = json.loads((await nc.request("$JS.API.STREAM.INFO.MOZART_default_CONTROL", b"", timeout=5)).data)
    shards = int(info["config"]["metadata"]["mozart-shards"])
    streams = ["JOURNAL"] if shards == 1 else [f"JOURNAL_{shard}" for shard in range(shards)]
    wanted = json.dumps({"last_by_subj": f"mozart.default.journal.{name.replace('/', '.')}.>"}).encode()
    for _ in range(600):
        asked = [nc.request(f"$JS.API.STREAM.MSG.GET.MOZART_default_{stream}", wanted, timeout=5) for stream in streams]
        if not any("message" in json.loads(answer.data) for answer in await asyncio.gather(*asked)):
            await nc.close()
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{name} has not left the journal")


async def user(url, creds):
    """Somebody with rights of its own, who may send to `a` alone."""
    for client in clients(url, creds, patience=10):
        assert [agent.name for agent in await client.agents()] == ["a", "b"]
        sent = await client.send("a", "say mine")
        assert sent.name.startswith("a/ana/"), sent
        assert (await client.wait(sent, timeout=30)).text() == "mine"
        events = [event async for event in client.stream("a", "count 3")]
        assert "".join(event.text for event in events) == "1 2 3 ", events
        error = await refused(mozart_client.DeniedError, client.send("b", "say no"))
        assert "journal.b.ana" in error.cause, error
        long = await client.send("a", "sleep 60")
        assert (await client.cancel(long)).status == "cancelled"
        # What is another's it may read, and not cancel.
        theirs = await client.message("a/user/theirs")
        assert theirs.raw["message"] == "sleep 60", theirs
        await refused(mozart_client.DeniedError, client.cancel(theirs))
    for bad in ("/none", __file__):
        await refused_now(mozart_client.UsageError, lambda bad=bad: Client(url, creds=bad))
    await refused_now(mozart_client.UsageError, lambda: Client(url, creds=creds, namespace="another"))
    await refused_now(mozart_client.UsageError, lambda: Client(url, "mozart_x_y"))
    say(done=True)


async def reader(url, creds):
    """Somebody who may only read."""
    for client in clients(url, creds, patience=10):
        assert (await client.agent("a"))["agent"] == "a"
        assert (await client.wait("done", timeout=30)).text() == "hi"
        await refused(mozart_client.DeniedError, client.send("a", "say no"))
    say(may="read")
    while True:
        # Until its login is revoked.
        try:
            await client.message("done")
        except mozart_client.DeniedError as error:
            say(done=True, what=error.what)
            return
        await asyncio.sleep(0.1)


async def refused_now(kind, call):
    async def called():
        call()

    await refused(kind, called())


async def namesakes(url, token=None):
    """Somebody else has sent a message with the same id to another agent: what was sent here is meant by what `send` returns."""
    for client in clients(url, token, patience=5):
        sent = await client.send("a", "say ours", message_id="same")
        assert sent.name.startswith("a/") and sent.name.endswith("/same"), sent
        assert (await client.wait(sent, timeout=30)).text() == "ours"
        assert (await client.message(sent.name)).text() == "ours"
        assert await client.ask("a", "say ours", message_id="same", timeout=30) == "ours"
        last = [event async for event in client.stream("a", "say ours", message_id="same")][-1]
        assert last.response == "ours", last
        await refused(mozart_client.ConflictError, client.cancel(sent))
        await refused(mozart_client.NotFoundError, client.message("same"))
    say(done=True)


async def killed(url, token=None):
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

    plain, other = made(Client, url, token), made(AsyncClient, url, token)
    first = asyncio.to_thread(lambda: asyncio.run(read(Plain(plain), "count 60 0.05")))
    both = await asyncio.gather(first, read(other, "count 61 0.05"))
    for count, (text, response) in zip((60, 61), both):
        expected = "".join(f"{number} " for number in range(1, count + 1))
        assert text == response == expected, (count, text)
    say(done=True)


async def cut(url, token=None):
    """Connections are cut again and again, anywhere: the streams go on, each event once."""
    scheme, _, where = url.partition("://")
    login, at, where = where.rpartition("@")
    host, port = where.split(":")
    # What is stored is read again over NATS, which has to fit.
    least, most = (8000, 60000) if over_nats(url) else (100, 3000)
    seed = random.randrange(1 << 32)
    chance, cuts = random.Random(seed), 0

    async def relay(reader, writer):
        nonlocal cuts
        server, to_server = await asyncio.open_connection(host, int(port))

        async def forward():
            while data := await reader.read(65536):
                to_server.write(data)

        forwarding = asyncio.ensure_future(forward())
        left = chance.randrange(least, most)
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
    through = f"{scheme}://{login}{at}127.0.0.1:{relaying.sockets[0].getsockname()[1]}"

    async def read(client, count):
        events = [event async for event in client.stream("a", f"count {count} 0.01")]
        ids = [event.id for event in events]
        assert len(set(ids)) == len(ids), (seed, ids)
        text = "".join(event.text for event in events)
        assert text == events[-1].response == "".join(f"{number} " for number in range(1, count + 1)), (seed, text)

    plain, other = made(Client, through, token), made(AsyncClient, through, token)
    await asyncio.gather(asyncio.to_thread(lambda: asyncio.run(read(Plain(plain), 300))), read(other, 301))
    await asyncio.gather(asyncio.to_thread(plain.close), other.close())
    relaying.close()
    say(done=cuts >= 10, cuts=cuts, seed=seed)


def local(folder, *how):
    client = Client.local(folder, nats="nats" in how)
    say(agents=[agent.name for agent in client.agents()])


if sys.argv[1] == "local":
    local(*sys.argv[2:])
else:
    asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
