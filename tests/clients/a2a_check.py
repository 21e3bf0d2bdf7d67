"""The stock client of A2A (a2a-sdk), against an agent's address: python3 a2a_check.py BASE TOKEN STEP [ARGUMENTS].

Prints one JSON object per line. A step that fails prints {"error": KIND, "message": TEXT} and ends with 3.
"""

import asyncio
import json
import sys
import uuid

import httpx
from a2a.client import ClientConfig, create_client
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskState,
)


def say(**fields):
    print(json.dumps(fields), flush=True)


def message(text, message_id=None, context_id=""):
    parts = [Part(text=text)]
    return Message(
        message_id=message_id or str(uuid.uuid4()), role=Role.ROLE_USER, parts=parts, context_id=context_id
    )


def task_fields(task):
    texts = [part.text for artifact in task.artifacts for part in artifact.parts]
    return {
        "task": task.id,
        "context": task.context_id,
        "state": TaskState.Name(task.status.state),
        "text": "".join(texts),
        "parts": len(texts),
        "reason": "".join(part.text for part in task.status.message.parts),
        "history": len(task.history),
    }


def told(event):
    """Prints an event of a stream as it is."""
    if event.HasField("task"):
        say(kind="task", **task_fields(event.task))
    elif event.HasField("status_update"):
        update = event.status_update
        reason = "".join(part.text for part in update.status.message.parts)
        say(kind="status", task=update.task_id, state=TaskState.Name(update.status.state), reason=reason)
    elif event.HasField("artifact_update"):
        update = event.artifact_update
        text = "".join(part.text for part in update.artifact.parts)
        say(kind="artifact", task=update.task_id, text=text, append=update.append, last=update.last_chunk)


async def run(base, token, step, arguments):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    streaming = step in ("stream", "subscribe")
    async with httpx.AsyncClient(headers=headers, timeout=60) as http:
        client = await create_client(base, ClientConfig(httpx_client=http, streaming=streaming))
        if step == "card":
            card = client._card
            say(
                name=card.name,
                description=card.description,
                url=card.supported_interfaces[0].url,
                version=card.supported_interfaces[0].protocol_version,
                streaming=card.capabilities.streaming,
                skills=[skill.id for skill in card.skills],
            )
        elif step in ("send", "stream", "start"):
            text, *rest = arguments
            request = SendMessageRequest(
                message=message(text, *rest),
                configuration=SendMessageConfiguration(return_immediately=step == "start"),
            )
            async for event in client.send_message(request):
                told(event)
        elif step == "subscribe":
            async for event in client.subscribe(SubscribeToTaskRequest(id=arguments[0])):
                told(event)
        elif step == "get":
            say(kind="task", **task_fields(await client.get_task(GetTaskRequest(id=arguments[0]))))
        elif step == "cancel":
            say(kind="task", **task_fields(await client.cancel_task(CancelTaskRequest(id=arguments[0]))))
        else:
            raise SystemExit(f"no step {step!r}")


def main():
    base, token, step, *arguments = sys.argv[1:]
    try:
        asyncio.run(run(base, token, step, arguments))
    except Exception as error:
        say(error=type(error).__name__, message=str(error))
        sys.exit(3)


main()
