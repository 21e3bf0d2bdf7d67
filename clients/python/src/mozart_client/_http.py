"""The fleet over HTTP, by `mozart api`."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any, AsyncIterator, Dict, List, Optional

from ._door import Draft
from ._errors import MozartError, of_answer
from ._models import Agent, Event, Message
from ._pace import Broken, Pauses, in_time
from ._wire import CONNECT, Answer, Follow, Request, Sse, Target, after_page, api, full_name, is_passing, silence, to_send


class _Connection:
    """A request, and its answer as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silent: float) -> None:
        self.answer = Answer()
        self._reader = reader
        self._writer = writer
        self._silent = silent

    @classmethod
    async def open(cls, target: Target, request: Request, tls: Optional[ssl.SSLContext], silent: float) -> "_Connection":
        context = (tls or ssl.create_default_context()) if target.tls else None
        opening = asyncio.open_connection(target.host, target.port, ssl=context)
        reader, writer = await asyncio.wait_for(opening, CONNECT)
        connection = cls(reader, writer, silent)
        try:
            writer.write(request.bytes(target))
            await asyncio.wait_for(writer.drain(), silent)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _more(self) -> bytes:
        return self.answer.feed(await asyncio.wait_for(self._reader.read(65536), self._silent))

    async def read(self) -> bytes:
        """More of the body; nothing once it is whole."""
        while not self.answer.is_whole:
            body = await self._more()
            if body:
                return body
        return b""

    async def head(self) -> bytes:
        """Reads up to the body, and yields what has come of that."""
        body = b""
        while not self.answer.status:
            body += await self._more()
        return body

    def within(self, seconds: float) -> None:
        """How long the next bytes may take."""
        self._silent = seconds

    def close(self) -> None:
        self._writer.close()


# Before Python 3.11, a timeout of asyncio is no OSError.
_BROKEN = (OSError, Broken, asyncio.TimeoutError)


class HttpDoor:
    """The fleet, asked over HTTP."""

    def __init__(self, target: Target, *, tls: Optional[ssl.SSLContext], patience: float, timeout: float) -> None:
        self._target = target
        self._patience = patience
        self._timeout = timeout
        self._tls = tls

    # Agents.

    async def agents(self) -> List[Agent]:
        agents: List[Agent] = []
        after: Optional[str] = None
        while True:
            answer, body = await self._ask(Request("GET", api("agents"), {"after": after, "limit": "1000"}))
            agents.extend(Agent.of(row) for row in json.loads(body))
            after = after_page(answer.headers)
            if after is None:
                return agents

    async def agent(self, name: str) -> Dict[str, Any]:
        found: Dict[str, Any] = await self._json(Request("GET", api("agents", name)))
        return found

    # Messages.

    async def send(self, draft: Draft) -> Message:
        answer, body = await self._ask(to_send(draft))
        return Message.of(json.loads(body), full_name(answer.headers))

    def stream(self, draft: Draft) -> AsyncIterator[Event]:
        return self._follow(Follow(to_send(draft), draft.id, None, self._patience), None)

    def events(self, name: str, after: Optional[str], until: Optional[float]) -> AsyncIterator[Event]:
        return self._follow(Follow(None, name, after, self._patience), until)

    async def wait(self, name: str, until: Optional[float]) -> Message:
        while True:
            async for _event in self.events(name, None, until):
                pass
            message = await self.message(name)
            if message.is_final:
                return message
            # The agent was stopped or removed, which ends streams. The message goes on once the agent does.
            in_time(name, until)
            await asyncio.sleep(0.5)

    async def message(self, name: str) -> Message:
        return Message.of(await self._json(Request("GET", api("messages", name))))

    async def cancel(self, name: str) -> Message:
        return Message.of(await self._json(Request("POST", api("messages", name, "cancel")), repeat=False))

    async def close(self) -> None:
        """Every request has a connection of its own."""

    # How.

    async def _json(self, request: Request, *, repeat: bool = True) -> Any:
        return json.loads((await self._ask(request, repeat=repeat))[1])

    async def _ask(self, request: Request, *, repeat: bool = True) -> "tuple[Answer, bytes]":
        pauses = Pauses(self._patience if repeat else 0)
        while True:
            try:
                connection = await _Connection.open(self._target, request, self._tls, self._timeout)
                try:
                    body = await connection.head()
                    while more := await connection.read():
                        body += more
                finally:
                    connection.close()
                if connection.answer.status < 400:
                    return connection.answer, body
                error: MozartError = of_answer(connection.answer.status, body)
                if not is_passing(connection.answer.status):
                    raise error
            except _BROKEN as broken:
                error = self._target.unreachable(broken)
            await asyncio.sleep(pauses.next(error))

    async def _follow(self, follow: Follow, until: Optional[float]) -> AsyncIterator[Event]:
        while not follow.is_done:
            try:
                async for event in self._connected(follow, until):
                    yield event
                if follow.is_done:
                    return
                error: MozartError = self._target.unreachable(Broken("the stream ended before the message did"))
            except _BROKEN as broken:
                error = self._target.unreachable(broken)
            in_time(follow.name, until)
            await asyncio.sleep(follow.pauses.next(error))

    async def _connected(self, follow: Follow, until: Optional[float]) -> AsyncIterator[Event]:
        """The events of one connection."""
        connection = await _Connection.open(self._target, follow.request(), self._tls, silence(until))
        try:
            body, events = await connection.head(), Sse()
            status = connection.answer.status
            follow.begin(connection.answer.headers)
            if status == 204:
                follow.is_done = True
                return
            if status >= 400:
                while more := await connection.read():
                    body += more
                error = of_answer(status, body)
                if is_passing(status):
                    raise Broken(str(error))
                raise error
            while True:
                for event in events.feed(body):
                    follow.take(event)
                    yield event
                    if follow.is_done:
                        return
                in_time(follow.name, until)
                connection.within(silence(until))
                body = await connection.read()
                if not body:
                    return
        finally:
            connection.close()
