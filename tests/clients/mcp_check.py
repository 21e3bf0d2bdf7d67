"""The stock client of the Model Context Protocol against `mozart api` and `mozart mcp`.

mcp_check.py CHECK MODE http URL KEY | mcp_check.py CHECK MODE stdio PROGRAM ARG…. MODE is `legacy` or `auto`, the two eras of the protocol.
Says what it found as lines of JSON; a check that fails ends with a traceback.
"""

import json
import os
import sys
from contextlib import asynccontextmanager

import anyio
import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

CHECK, MODE, KIND, *WHERE = sys.argv[1:]


def say(**found):
    # In one piece: several threads may have something to say.
    os.write(1, (json.dumps(found) + "\n").encode())


@asynccontextmanager
async def connected():
    if KIND == "stdio":
        server = StdioServerParameters(command=WHERE[0], args=WHERE[1:], env=dict(os.environ))
        async with Client(stdio_client(server), mode=MODE) as client:
            yield client
    else:
        headers = {"Authorization": f"Bearer {WHERE[1]}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            async with Client(streamable_http_client(WHERE[0], http_client=http), mode=MODE) as client:
                yield client


async def call(client, tool, is_error=False, **arguments):
    result = await client.call_tool(tool, arguments)
    assert bool(result.is_error) == is_error, result
    assert json.loads(result.content[0].text) == result.structured_content, result
    return result.structured_content


async def everything():
    async with connected() as client:
        assert client.server_info.name == "mozart", client.server_info
        assert "list_agents" in client.instructions
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert sorted(tools) == ["agent_logs", "answer_question", "ask_agent", "cancel_message", "explain", "list_agents", "list_questions", "message_status"]
        assert all(tool.input_schema["additionalProperties"] is False for tool in tools.values())
        assert tools["list_agents"].annotations.read_only_hint and tools["cancel_message"].annotations.destructive_hint

        # A call that is cancelled leaves its message alone.
        kept = f"kept-{MODE}-{KIND}"
        with anyio.move_on_after(1) as scope:
            await client.call_tool("ask_agent", {"agent": "a", "message": "sleep 2; say kept", "message_id": kept})
        assert scope.cancelled_caught

        agents = (await call(client, "list_agents"))["agents"]
        assert [(agent["name"], agent["state"]) for agent in agents] == [("a", "running")], agents
        assert (await call(client, "list_agents", filter="z"))["agents"] == []

        done = await call(client, "ask_agent", agent="a", message="say hi", conversation="c1")
        assert (done["state"], done["text"], done["conversation"]) == ("done", "hi", "c1"), done
        again = await call(client, "ask_agent", agent="a", message="say hi", conversation="c1", message_id=done["message_id"])
        assert again["message_id"] == done["message_id"] and again["text"] == "hi", again

        # It is stored, and waited for later.
        queued = await call(client, "ask_agent", agent="a", message="count 5 0.3", wait_s=0)
        assert queued["state"] in ("queued", "running") and queued["message_id"] in queued["hint"], queued
        part = await call(client, "message_status", message_id=queued["message_id"], wait_s=1)
        whole = await call(client, "message_status", message_id=queued["message_id"], wait_s=30, after_seq=part["seq"])
        assert whole["state"] == "done" and part["text"] + whole["text"] == "1 2 3 4 5 ", (part, whole)
        assert (await call(client, "message_status", message_id=queued["message_id"]))["text"] == "1 2 3 4 5 "

        # Whoever waits is told how far it is.
        told = []

        async def progress(done_, total, message):
            told.append((done_, total, message))

        asked = {"agent": "a", "message": "count 24 0.25", "wait_s": 30}
        result = await client.call_tool("ask_agent", asked, progress_callback=progress)
        assert result.structured_content["state"] == "done", result
        assert told and told[0][1] == 30 and told[0][2].startswith("1 2 3"), told

        # Errors are for the model to read; wrong arguments are the client's.
        unknown = await call(client, "ask_agent", is_error=True, agent="aa", message="x")
        assert unknown["code"] == 3 and "did you mean" in unknown["cause"] and unknown["try"], unknown
        failed = await call(client, "ask_agent", is_error=True, agent="a", message="fail no")
        assert failed["cause"] == "no" and "explain" in failed["try"], failed
        conflict = await call(client, "ask_agent", is_error=True, agent="a", message="x", message_id=done["message_id"])
        assert conflict["code"] == 4, conflict
        for tool, wrong in (("ask_agent", {"agent": "a"}), ("list_agents", {"nonsense": 1}), ("no_such_tool", {})):
            try:
                await client.call_tool(tool, wrong)
                raise AssertionError(f"{tool} takes {wrong}")
            except MCPError as error:
                assert error.code == -32602, error

        # A message is cancelled, twice; and one that is over stays as it is.
        long = await call(client, "ask_agent", agent="a", message="sleep 60", wait_s=0)
        for _time in range(2):
            cancelled = await call(client, "cancel_message", message_id=long["message_id"])
            assert cancelled["state"] == "cancelled", cancelled
        assert (await call(client, "cancel_message", message_id=done["message_id"]))["state"] == "done"

        # What the worker asks a person.
        waits = await call(client, "ask_agent", agent="a", message="question Go?", wait_s=0)
        with anyio.fail_after(30):
            while not (open := await call(client, "list_questions", agent="a"))["questions"]:
                await anyio.sleep(0.05)
        question = open["questions"][0]
        assert (question["text"], question["message_id"]) == ("Go?", waits["message_id"]), question
        assert (await call(client, "list_questions"))["questions"] == open["questions"]
        of = {name: question[name] for name in ("agent", "message_id", "request_id")}
        answered = await call(client, "answer_question", text="go on", **of)
        assert answered["text"] == "go on", answered
        late = await call(client, "answer_question", is_error=True, text="no", **of)
        assert late["code"] in (3, 4), late
        state = await call(client, "message_status", message_id=waits["message_id"], wait_s=30)
        assert (state["state"], state["text"]) == ("done", "go on"), state

        why = await call(client, "explain", subject="a")
        assert why["subject"] == "a" and why["explanation"], why
        assert (await call(client, "explain", subject=long["message_id"]))["explanation"]
        await call(client, "explain", is_error=True, subject="no-such-thing")
        lines = (await call(client, "agent_logs", agent="a", lines=5))["lines"]
        assert len(lines) <= 5, lines
        await call(client, "agent_logs", is_error=True, agent="zz")

        # By now, an older client has its answer, too: it cannot take it back.
        state = await call(client, "message_status", message_id=kept, wait_s=30)
        assert (state["state"], state["text"]) == ("done", "kept"), state
        if KIND == "stdio" or MODE != "legacy":
            # Unless it is told otherwise; an older client over HTTP cannot say so.
            ended = f"ended-{MODE}-{KIND}"
            asked = {"agent": "a", "message": "sleep 60", "message_id": ended, "on_cancel": "cancel"}
            with anyio.move_on_after(1) as scope:
                await client.call_tool("ask_agent", asked)
            assert scope.cancelled_caught
            state = await call(client, "message_status", message_id=ended, wait_s=20)
            assert state["state"] == "cancelled", state
    say(done=True)


async def killed():
    """The server is killed while a tool waits: that is an error, and the same call again has the answer."""
    asked = {"agent": "a", "message": "sleep 3; say survived", "message_id": f"m-{MODE}", "wait_s": 30}
    try:
        async with connected() as client:
            await client.list_tools()
            say(waiting=True)
            result = await client.call_tool("ask_agent", asked)
            say(ended=result.structured_content)
            return
    except* Exception as error:
        say(error=repr(error.exceptions))
    for _attempt in range(100):
        try:
            async with connected() as client:
                again = await call(client, "ask_agent", **asked)
                say(text=again["text"], state=again["state"])
                return
        except* (httpx2.HTTPError, MCPError, OSError):
            await anyio.sleep(0.1)


async def refused():
    """A key that is none."""
    try:
        async with connected() as client:
            await client.list_tools()
    except* Exception as error:
        say(error=repr(error.exceptions))


async def denied():
    """A key that may only read, and one agent alone."""
    async with connected() as client:
        assert [agent["name"] for agent in (await call(client, "list_agents"))["agents"]] == ["a"]
        for tool, arguments in (
            ("ask_agent", {"agent": "a", "message": "x"}),
            ("cancel_message", {"message_id": "x"}),
            ("agent_logs", {"agent": "b"}),
            ("explain", {"subject": "b"}),
            ("list_questions", {"agent": "b"}),
            ("answer_question", {"agent": "a", "message_id": "m", "request_id": "q", "text": "yes"}),
        ):
            found = await call(client, tool, is_error=True, **arguments)
            assert found["code"] in (3, 7), (tool, found)
    say(done=True)


anyio.run(globals()[CHECK])
