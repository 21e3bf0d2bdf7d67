"""The client that blocks."""

from __future__ import annotations

import json
import socket
import ssl
import time
from typing import Any, Dict, Iterator, List, Optional

from ._errors import MozartError, TimedOutError, of_answer
from ._models import Agent, Event, Message
from ._wire import CONNECT, Answer, Broken, Follow, Pauses, Request, Sse, Target, after_page, api, is_passing, silence, to_send


class _Connection:
    """A request, and its answer as it comes."""

    def __init__(self, target: Target, request: Request, tls: Optional[ssl.SSLContext], silent: float) -> None:
        self.answer = Answer()
        sock = socket.create_connection((target.host, target.port), CONNECT)
        self._sock: socket.socket = sock
        try:
            if target.tls:
                context = tls or ssl.create_default_context()
                self._sock = context.wrap_socket(sock, server_hostname=target.host)
            self._sock.settimeout(silent)
            self._sock.sendall(request.bytes(target))
        except BaseException:
            self.close()
            raise

    def read(self) -> bytes:
        """More of the body; nothing once it is whole."""
        while not self.answer.is_whole:
            body = self.answer.feed(self._sock.recv(65536))
            if body:
                return body
        return b""

    def head(self) -> bytes:
        """Reads up to the body, and yields what has come of that."""
        body = b""
        while not self.answer.status:
            body += self.answer.feed(self._sock.recv(65536))
        return body

    def within(self, seconds: float) -> None:
        """How long the next bytes may take."""
        self._sock.settimeout(seconds)

    def close(self) -> None:
        self._sock.close()


class Client:
    """A client of a fleet.

    `url` is where `mozart api` listens, `token` one of `mozart token create`. For `patience` seconds, a connection that breaks is made
    again; nothing is sent twice by that, and no event is yielded twice.
    """

    def __init__(
        self, url: str, token: str, *, patience: float = 60.0, timeout: float = 60.0, tls: Optional[ssl.SSLContext] = None
    ) -> None:
        self._target = Target.of(url, token)
        self._patience = patience
        self._timeout = timeout
        self._tls = tls

    @classmethod
    def local(cls, folder: Optional[str] = None, *, patience: float = 60.0) -> "Client":
        """A client of the fleet that `mozart up` runs here, by its folder [default: $MOZART_DIR, else ~/.mozart]."""
        target = Target.local(folder)
        scheme = "https" if target.tls else "http"
        return cls(f"{scheme}://{target.authority}", target.token, patience=patience)

    # Agents.

    def agents(self) -> List[Agent]:
        """All agents."""
        agents: List[Agent] = []
        after: Optional[str] = None
        while True:
            answer, body = self._ask(Request("GET", api("agents"), {"after": after, "limit": "1000"}))
            agents.extend(Agent.of(row) for row in json.loads(body))
            after = after_page(answer.headers)
            if after is None:
                return agents

    def agent(self, name: str) -> Dict[str, Any]:
        """Everything known about an agent."""
        found: Dict[str, Any] = self._json(Request("GET", api("agents", name)))
        return found

    # Messages.

    def send(
        self,
        agent: str,
        message: str,
        *,
        conversation: Optional[str] = None,
        message_id: Optional[str] = None,
        deadline: Optional[float] = None,
    ) -> Message:
        """Stores a message, and returns once it is on disk. The same id with the same content is the same message.

        It expires when no worker has started it within `deadline` seconds.
        """
        _, request = to_send(agent, message, conversation, message_id, deadline)
        return Message.of(self._json(request))

    def ask(
        self,
        agent: str,
        message: str,
        *,
        conversation: Optional[str] = None,
        message_id: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> str:
        """Sends a message, and returns its answer. Raises `FailedError` where there is none, and `TimedOutError` when it takes too long."""
        return self.wait(self.send(agent, message, conversation=conversation, message_id=message_id).message_id, timeout=timeout).text()

    def stream(
        self, agent: str, message: str, *, conversation: Optional[str] = None, message_id: Optional[str] = None
    ) -> Iterator[Event]:
        """Sends a message, and yields its events up to `done`."""
        id_, request = to_send(agent, message, conversation, message_id, None)
        return self._follow(Follow(request, id_, None, self._patience), None)

    def events(self, message_id: str, *, after: Optional[str] = None, timeout: Optional[float] = None) -> Iterator[Event]:
        """The events of a message up to `done`: all of them, or those after the one with the id `after`."""
        until = None if timeout is None else time.monotonic() + timeout
        return self._follow(Follow(None, message_id, after, self._patience), until)

    def wait(self, message_id: str, *, timeout: Optional[float] = None) -> Message:
        """Waits until a message is final. Raises `TimedOutError` when it takes longer than `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            for _event in self._follow(Follow(None, message_id, None, self._patience), until):
                pass
            message = self.message(message_id)
            if message.is_final:
                return message
            # The agent was stopped or removed, which ends streams. The message goes on once the agent does.
            time.sleep(0.5)

    def message(self, message_id: str) -> Message:
        """A message as it is now."""
        return Message.of(self._json(Request("GET", api("messages", message_id))))

    def cancel(self, message_id: str) -> Message:
        """Cancels a message: no answer can come any more. Raises `ConflictError` when it is over already."""
        return Message.of(self._json(Request("POST", api("messages", message_id, "cancel")), repeat=False))

    # How.

    def _json(self, request: Request, *, repeat: bool = True) -> Any:
        return json.loads(self._ask(request, repeat=repeat)[1])

    def _ask(self, request: Request, *, repeat: bool = True) -> "tuple[Answer, bytes]":
        pauses = Pauses(self._patience if repeat else 0)
        while True:
            try:
                connection = _Connection(self._target, request, self._tls, self._timeout)
                try:
                    body = connection.head()
                    while more := connection.read():
                        body += more
                finally:
                    connection.close()
                if connection.answer.status < 400:
                    return connection.answer, body
                error: MozartError = of_answer(connection.answer.status, body)
                if not is_passing(connection.answer.status):
                    raise error
            except (OSError, Broken) as broken:
                error = self._target.unreachable(broken)
            time.sleep(pauses.next(error))

    def _follow(self, follow: Follow, until: Optional[float]) -> Iterator[Event]:
        while not follow.is_done:
            try:
                yield from self._connected(follow, until)
                if follow.is_done:
                    return
                error: MozartError = self._target.unreachable(Broken("the stream ended before the message did"))
            except (OSError, Broken) as broken:
                error = self._target.unreachable(broken)
            self._in_time(follow, until)
            time.sleep(follow.pauses.next(error))

    def _connected(self, follow: Follow, until: Optional[float]) -> Iterator[Event]:
        """The events of one connection."""
        connection = _Connection(self._target, follow.request(), self._tls, silence(until))
        try:
            body, events = connection.head(), Sse()
            status = connection.answer.status
            if status == 204:
                follow.is_done = True
                return
            if status >= 400:
                while more := connection.read():
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
                self._in_time(follow, until)
                connection.within(silence(until))
                body = connection.read()
                if not body:
                    return
        finally:
            connection.close()

    @staticmethod
    def _in_time(follow: Follow, until: Optional[float]) -> None:
        if until is not None and time.monotonic() >= until:
            what = f"no answer to {follow.message_id} in time"
            raise TimedOutError(what, "it is stored, and goes on", f"wait({follow.message_id!r})")
