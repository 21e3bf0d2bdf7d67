"""What a client does, by whichever way: what `Client` and `AsyncClient` offer is made of this."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, AsyncIterator, Dict, List, Optional, Protocol

from ._models import Agent, Event, Message


@dataclass(frozen=True)
class Draft:
    """A message that is to be sent: it always has an id, so that sending it can be repeated."""

    agent: str
    text: str
    id: str
    is_named: bool
    """Whether whoever sends it has given the id: then it may have been sent before."""
    conversation: Optional[str] = None
    deadline: Optional[float] = None
    """It expires when no worker has started it within so many seconds."""
    deliver_at: Optional[datetime.datetime] = None
    """It is not delivered before. With a time zone."""


class Door(Protocol):
    """A way to the fleet. Times are by `time.monotonic`; None: there is no end."""

    async def agents(self) -> List[Agent]: ...

    async def agent(self, name: str) -> Dict[str, Any]: ...

    async def send(self, draft: Draft) -> Message: ...

    def stream(self, draft: Draft) -> AsyncIterator[Event]: ...

    def events(self, name: str, after: Optional[str], until: Optional[float]) -> AsyncIterator[Event]: ...

    async def wait(self, name: str, until: Optional[float]) -> Message: ...

    async def message(self, name: str) -> Message: ...

    async def cancel(self, name: str) -> Message: ...

    async def close(self) -> None: ...
