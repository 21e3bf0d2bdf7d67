"""The client that blocks."""

from __future__ import annotations

import datetime
import ssl
from types import TracebackType
from typing import Any, Dict, Iterator, List, Optional, Type

from ._aio import AsyncClient
from ._loop import each, run
from ._models import Agent, Event, Message, MessageOrId


class Client:
    """A client of a fleet.

    `url` is where `mozart api` listens, with one of `mozart token create` as the `token`; or the NATS server of the fleet, `nats://HOST:4222`,
    with a login in the address or the file of `mozart user add` as `creds`. For `patience` seconds, a connection that breaks is made again;
    nothing is sent twice by that, and no event is yielded twice.

    `timeout` is how long an answer may take. `ca` is a file with the certificates of those who vouch for the NATS servers, `tls` a context in
    place of it; with either, nothing is sent but over TLS. Over HTTP, `tls` replaces the system's certificates.

    It may be used by several threads. What it does, it does on a thread of its own, which all clients of the process share.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        creds: Optional[str] = None,
        ca: Optional[str] = None,
        namespace: str = "default",
        patience: float = 60.0,
        timeout: float = 60.0,
        tls: Optional[ssl.SSLContext] = None,
    ) -> None:
        self._client = AsyncClient(
            url, token, creds=creds, ca=ca, namespace=namespace, patience=patience, timeout=timeout, tls=tls
        )

    @classmethod
    def local(cls, folder: Optional[str] = None, *, patience: float = 60.0, nats: bool = False) -> "Client":
        """A client of the fleet that `mozart up` runs here, by its folder [default: $MOZART_DIR, else ~/.mozart]; over HTTP, or NATS."""
        client = cls.__new__(cls)
        client._client = AsyncClient.local(folder, patience=patience, nats=nats)
        return client

    # Agents.

    def agents(self) -> List[Agent]:
        """All agents."""
        return run(self._client.agents())

    def agent(self, name: str) -> Dict[str, Any]:
        """Everything known about an agent."""
        return run(self._client.agent(name))

    # Messages.

    def send(
        self,
        agent: str,
        message: str,
        *,
        conversation: Optional[str] = None,
        message_id: Optional[str] = None,
        deadline: Optional[float] = None,
        deliver_at: Optional[datetime.datetime] = None,
    ) -> Message:
        """Stores a message, and returns once it is on disk. The same id with the same content is the same message.

        It is not delivered before `deliver_at`, which has a time zone. It expires when no worker has started it within `deadline` seconds, from
        when it is delivered.
        """
        sending = self._client.send(
            agent, message, conversation=conversation, message_id=message_id, deadline=deadline, deliver_at=deliver_at
        )
        return run(sending)

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
        return run(self._client.ask(agent, message, conversation=conversation, message_id=message_id, timeout=timeout))

    def stream(
        self, agent: str, message: str, *, conversation: Optional[str] = None, message_id: Optional[str] = None
    ) -> Iterator[Event]:
        """Sends a message, and yields its events up to `done`."""
        return each(self._client.stream(agent, message, conversation=conversation, message_id=message_id))

    def events(
        self, message_id: MessageOrId, *, after: Optional[str] = None, timeout: Optional[float] = None
    ) -> Iterator[Event]:
        """The events of a message up to `done`: all of them, or those after the one with the id `after`."""
        return each(self._client.events(message_id, after=after, timeout=timeout))

    def wait(self, message_id: MessageOrId, *, timeout: Optional[float] = None) -> Message:
        """Waits until a message is final. Raises `TimedOutError` when it takes longer than `timeout` seconds."""
        return run(self._client.wait(message_id, timeout=timeout))

    def message(self, message_id: MessageOrId) -> Message:
        """A message as it is now."""
        return run(self._client.message(message_id))

    def cancel(self, message_id: MessageOrId) -> Message:
        """Cancels a message: no answer can come any more. Raises `ConflictError` when it is over already."""
        return run(self._client.cancel(message_id))

    # Its connection.

    def close(self) -> None:
        """Closes the connection to NATS. Over HTTP there is none that lasts."""
        run(self._client.close())

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
