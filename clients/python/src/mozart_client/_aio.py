"""The client for asyncio."""

from __future__ import annotations

import datetime
import ssl
from types import TracebackType
from typing import Any, AsyncIterator, Dict, List, Optional, Type

from ._door import Door, Draft
from ._errors import UsageError
from ._http import HttpDoor
from ._models import Agent, Event, Message, MessageOrId, name_of
from ._pace import end_of, new_id
from ._wire import Target, local


class AsyncClient:
    """A client of a fleet, as `Client`, for asyncio.

    `url` is where `mozart api` listens, with one of `mozart token create` as the `token`; or the NATS server of the fleet, `nats://HOST:4222`,
    with a login in the address or the file of `mozart user add` as `creds`. For `patience` seconds, a connection that breaks is made again;
    nothing is sent twice by that, and no event is yielded twice.

    `timeout` is how long an answer may take. `ca` is a file with the certificates of those who vouch for the NATS servers, `tls` a context in
    place of it; with either, nothing is sent but over TLS. Over HTTP, `tls` replaces the system's certificates.
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
        self._door: Door
        if url.startswith(("nats:", "tls:")):
            if token:
                raise UsageError("a token is for the API over HTTP", "NATS has logins of its own", "creds, or a login in the address")
            # It needs a package that those who speak HTTP alone do not have.
            try:
                from ._nats import NatsDoor
            except ImportError as missing:
                raise UsageError("NATS needs another package", str(missing), "pip install 'mozart-client[nats]'") from missing

            self._door = NatsDoor(url, creds=creds, ca=ca, tls=tls, namespace=namespace, patience=patience, timeout=timeout)
            return
        if creds is not None or ca is not None:
            raise UsageError("creds and ca are for NATS", f"{url!r} is not the address of a NATS server", "nats://HOST:4222; or token and tls")
        self._door = HttpDoor(Target.of(url, token), tls=tls, patience=patience, timeout=timeout)

    @classmethod
    def local(cls, folder: Optional[str] = None, *, patience: float = 60.0, nats: bool = False) -> "AsyncClient":
        """A client of the fleet that `mozart up` runs here, by its folder [default: $MOZART_DIR, else ~/.mozart]; over HTTP, or NATS."""
        if nats:
            _, note = local(folder)
            return cls(note["url"], namespace=note["namespace"], patience=patience)
        target = Target.local(folder)
        scheme = "https" if target.tls else "http"
        return cls(f"{scheme}://{target.authority}", target.token, patience=patience)

    # Agents.

    async def agents(self) -> List[Agent]:
        """All agents."""
        return await self._door.agents()

    async def agent(self, name: str) -> Dict[str, Any]:
        """Everything known about an agent."""
        return await self._door.agent(name)

    # Messages.

    async def send(
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
        return await self._door.send(_draft(agent, message, conversation, message_id, deadline, deliver_at))

    async def ask(
        self,
        agent: str,
        message: str,
        *,
        conversation: Optional[str] = None,
        message_id: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> str:
        """Sends a message, and returns its answer. Raises `FailedError` where there is none, and `TimedOutError` when it takes too long."""
        until = end_of(timeout)
        sent = await self._door.send(_draft(agent, message, conversation, message_id, None))
        return (await self._door.wait(sent.name, until)).text()

    def stream(
        self, agent: str, message: str, *, conversation: Optional[str] = None, message_id: Optional[str] = None
    ) -> AsyncIterator[Event]:
        """Sends a message, and yields its events up to `done`."""
        return self._door.stream(_draft(agent, message, conversation, message_id, None))

    def events(
        self, message_id: MessageOrId, *, after: Optional[str] = None, timeout: Optional[float] = None
    ) -> AsyncIterator[Event]:
        """The events of a message up to `done`: all of them, or those after the one with the id `after`."""
        return self._door.events(name_of(message_id), after, end_of(timeout))

    async def wait(self, message_id: MessageOrId, *, timeout: Optional[float] = None) -> Message:
        """Waits until a message is final. Raises `TimedOutError` when it takes longer than `timeout` seconds."""
        return await self._door.wait(name_of(message_id), end_of(timeout))

    async def message(self, message_id: MessageOrId) -> Message:
        """A message as it is now."""
        return await self._door.message(name_of(message_id))

    async def cancel(self, message_id: MessageOrId) -> Message:
        """Cancels a message: no answer can come any more. Raises `ConflictError` when it is over already."""
        return await self._door.cancel(name_of(message_id))

    # Its connection.

    async def close(self) -> None:
        """Closes the connection to NATS. Over HTTP there is none that lasts."""
        await self._door.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()


def _draft(
    agent: str,
    message: str,
    conversation: Optional[str],
    message_id: Optional[str],
    deadline: Optional[float],
    deliver_at: Optional[datetime.datetime] = None,
) -> Draft:
    if deliver_at is not None and deliver_at.tzinfo is None:
        raise UsageError("deliver_at has no time zone", str(deliver_at), "datetime.now(timezone.utc) + ..., for example")
    return Draft(agent, message, message_id or new_id(), message_id is not None, conversation, deadline, deliver_at)
