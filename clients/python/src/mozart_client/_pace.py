"""When to try again and when to give up, and ids: what all connections share."""

from __future__ import annotations

import secrets
import time
import uuid
from typing import Optional

from ._errors import MozartError, TimedOutError


class Broken(Exception):
    """The connection broke before the answer was whole: the same may work in a moment."""


class Pauses:
    """How long to wait between attempts, and when to give up: once nothing was heard for `patience` seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._pause = 0.1
        self._heard = time.monotonic()

    def heard(self) -> None:
        self._pause, self._heard = 0.1, time.monotonic()

    def next(self, error: MozartError) -> float:
        """The pause before the next attempt. Raises `error` when there is to be none."""
        if time.monotonic() + self._pause > self._heard + self._patience:
            raise error
        pause, self._pause = self._pause, min(self._pause * 2, 2.0)
        # Those that were cut off together do not come back together.
        return pause * (0.5 + secrets.randbelow(1000) / 1000)


def end_of(timeout: Optional[float]) -> Optional[float]:
    """When a timeout that begins now has passed."""
    return None if timeout is None else time.monotonic() + timeout


def in_time(name: str, until: Optional[float]) -> None:
    """Raises `TimedOutError` once the time for an answer has passed."""
    if until is not None and time.monotonic() >= until:
        what = f"no answer to {name} in time"
        raise TimedOutError(what, "it is stored, and goes on", f"wait({name!r})")


def new_id() -> str:
    """A UUIDv7."""
    stamp = int(time.time() * 1000) << 80
    random = secrets.randbits(80) & ~(0xF << 76) & ~(0x3 << 62)
    return str(uuid.UUID(int=stamp | random | (7 << 76) | (2 << 62)))
