"""The stock client of the Synadia Agent Protocol (synadia-ai-agents): python3 sap_check.py URL LOGIN STEP [ARGUMENTS].

LOGIN is `-` where URL has all it takes, or `NAME:SEED`: a user's login and the seed of its key, from a credentials file.
Prints one JSON object per line. A step that fails prints {"error": KIND, "message": TEXT} and ends with 3.
"""

import asyncio
import json
import sys

import nats
from synadia_ai.agents import Agents
from synadia_ai.agents.messages import ResponseChunk, StatusChunk


def say(**fields):
    print(json.dumps(fields), flush=True)


async def connect(url, login):
    async def failed(error):
        print(f"connection: {error}", file=sys.stderr, flush=True)

    if login == "-":
        return await nats.connect(url, error_cb=failed)
    name, seed = login.split(":")
    return await nats.connect(url, nkeys_seed_str=seed, token=name, error_cb=failed, allow_reconnect=False)


async def find(agents, name):
    found = [agent for agent in await agents.discover() if agent.session_name == name]
    if len(found) != 1:
        raise LookupError(f"{len(found)} agents with the name {name}")
    return found[0]


async def run(url, login, step, arguments):
    connection = await connect(url, login)
    agents = Agents(nc=connection)
    try:
        if step == "discover":
            for agent in await agents.discover():
                say(
                    kind=agent.agent,
                    owner=agent.owner,
                    name=agent.session_name,
                    id=agent.instance_id,
                    protocol=agent.protocol_version,
                    subject=agent.prompt_subject,
                    attachments=agent.prompt_endpoint.attachments_ok,
                    reachable=await agents.ping(agent.instance_id),
                )
        elif step == "status":
            beat = await (await find(agents, arguments[0])).status()
            say(name=beat.session, interval=beat.interval_s, **beat.extras)
        elif step == "beats":
            # Until one comes.
            agent = await find(agents, arguments[0])
            while (seen := agents.liveness(agent.instance_id)) is None:
                await asyncio.sleep(0.1)
            say(online=seen.is_online, interval=seen.interval_s)
        elif step == "prompt":
            name, text, *rest = arguments
            agent = await find(agents, name)
            timeout = float(rest[0]) if rest else None
            async for chunk in agent.prompt(text, timeout=timeout):
                if isinstance(chunk, ResponseChunk):
                    say(text=chunk.text)
                elif isinstance(chunk, StatusChunk):
                    say(status=chunk.status)
            say(end=True)
        elif step == "raw":
            # A prompt with headers of its own, as no stock client sends it.
            name, text, *rest = arguments
            agent = await find(agents, name)
            headers = dict(header.split("=", 1) for header in rest)
            inbox = connection.new_inbox() if login == "-" else "_INBOX.agents.raw.x"
            inbox = headers.pop("Inbox", inbox)
            answers = await connection.subscribe(inbox)
            await connection.publish(agent.prompt_subject, text.encode(), reply=inbox, headers=headers)
            while True:
                message = await answers.next_msg(timeout=30)
                if not message.data and not message.headers:
                    break
                if "Nats-Service-Error-Code" in (message.headers or {}):
                    say(code=message.headers["Nats-Service-Error-Code"], body=json.loads(message.data))
                    continue
                chunk = json.loads(message.data)
                say(**{"text" if chunk["type"] == "response" else chunk["type"]: chunk["data"]})
            say(end=True)
        elif step == "publish":
            # Whether the server lets something pass; it says so on stderr if not.
            await connection.publish(arguments[0], b"{}")
            await connection.flush()
            await asyncio.sleep(0.3)
        else:
            raise SystemExit(f"no step {step!r}")
    finally:
        await agents.close()
        await connection.close()


def main():
    url, login, step, *arguments = sys.argv[1:]
    try:
        asyncio.run(run(url, login, step, arguments))
    except Exception as error:
        say(error=type(error).__name__, message=str(error))
        sys.exit(3)


main()
