"""A client of Mozart: sends messages to agents, streams their answers, and resumes where a connection broke.

`Client` blocks, `AsyncClient` is for asyncio. Both speak HTTP to `mozart api`, and need nothing but the standard library for that; or NATS to the
server of the fleet, with the package `nats-py`.
"""

from ._aio import AsyncClient
from ._client import Client
from ._errors import (
    ConflictError,
    DeniedError,
    FailedError,
    LimitError,
    MozartError,
    NotFoundError,
    TimedOutError,
    UnreachableError,
    UsageError,
)
from ._models import Agent, Event, Message

__all__ = [
    "Agent",
    "AsyncClient",
    "Client",
    "ConflictError",
    "DeniedError",
    "Event",
    "FailedError",
    "LimitError",
    "Message",
    "MozartError",
    "NotFoundError",
    "TimedOutError",
    "UnreachableError",
    "UsageError",
]
