"""Free space in the journal: new messages are refused before it is full, so that those which are open can still get their final states. Pure.

How full it is, is asked once in a while, and sooner the less room is left. In between, what is stored here is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

REFUSE = 95
"""From this share on new messages are refused, in percent."""
_LEAST, _ROOM = 5 << 30, 16 << 20
"""What is kept free of a large disk, and of a small one."""
FINAL = 1024
"""The least that is set aside for the final state of each open message."""
FRAME = 256
"""What a record takes beyond its payload, about."""
_KNOWN, _REFUSED = 5.0, 1.0
"""How long what is known holds, and that there is no room, in seconds."""


@dataclass(frozen=True)
class Space:
    """What a journal has left for requests, and why it is not more. `left` None: there is no bound."""

    left: Optional[int]
    cause: str = ""


@dataclass(frozen=True)
class _Bound:
    of: str
    limit: int
    used: int
    margin: int
    """What is kept free of requests."""

    def left(self, aside: int) -> int:
        return max(0, self.limit - self.used - max(aside, self.margin))


def _bounds(info: Dict[str, Any], account: Dict[str, Any], disk: Optional[Dict[str, Any]]) -> List[_Bound]:
    found = [
        ("the journal", info["config"].get("max_bytes", -1), info["state"]["bytes"]),
        ("the account", account.get("limits", {}).get("max_storage", -1), account.get("storage", 0)),
    ]
    bounds = [_Bound(of, limit, used, limit - limit // 100 * REFUSE) for of, limit, used in found if limit > 0]
    if disk is not None and disk.get("total", 0) > 0:
        total, free = disk["total"], disk["free"]
        margin = min(max(total - total // 100 * REFUSE, _ROOM), _LEAST)
        bounds.append(_Bound("the broker's disk", total, max(0, total - free), margin))
    return bounds


def _least(bounds: List[_Bound], open_: int, reserve: int) -> Space:
    if not bounds:
        return Space(None)
    aside = open_ * reserve
    bound = min(bounds, key=lambda bound: bound.left(aside))
    why = f"{bound.margin} bytes are reserved for answers and the control log"
    if aside > bound.margin:
        why = f"what is left is reserved for the answers to {open_} open messages"
    return Space(bound.left(aside), f"{bound.of} holds {bound.used} of {bound.limit} bytes, {why}")


def space(info: Dict[str, Any], account: Dict[str, Any], disk: Optional[Dict[str, Any]], finals: Optional[int]) -> Tuple[Space, bool]:
    """What is left, and whether the final states have to be counted first: `finals` None, they are not."""
    if disk is not None and disk.get("fault"):
        return Space(0, "the broker's data was removed or replaced while it runs"), False
    bounds, messages = _bounds(info, account, disk), info["state"]["messages"]
    reserve = max(FINAL, info["state"]["bytes"] // max(messages, 1))
    if finals is not None:
        return _least(bounds, max(0, messages - 2 * finals), reserve), False
    # As if all of them were open. That is easily too many.
    found = _least(bounds, messages, reserve)
    return found, found.left != _least(bounds, 0, reserve).left


class Room:
    """The room in one journal stream, as far as is known. Times are in seconds, by any clock that only goes forward."""

    def __init__(self) -> None:
        self._at = 0.0
        self._space: Optional[Space] = None
        self._taken = 0

    def learn(self, found: Space, now: float) -> None:
        self._space, self._at, self._taken = found, now, 0

    def take(self, payload: int, now: float) -> Optional[Space]:
        """Takes room for a request. None: it has to be looked. A space of less than nothing left: it is full, and why."""
        size, age = payload + FRAME + FINAL, now - self._at
        if self._space is None:
            return None
        left = self._space.left
        if left is not None and left < size:
            return Space(-1, self._space.cause) if age < _REFUSED else None
        # Others send as well: with little room left it is looked at again soon.
        if age > _KNOWN or (left is not None and self._taken > 0 and self._taken + size > left // 4):
            return None
        self._taken += size
        return self._space
