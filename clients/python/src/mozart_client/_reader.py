"""What a reader of one message is shown, in which order, and when it ends. Pure.

Events come live, from the store, and with the final state; twice, late, or from an incarnation that is no longer the current one. What comes out
is in order, each event once, and never text of two attempts without a `reset` between. Positions are those of the HTTP API.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ._errors import UsageError
from ._models import Event

STRIDE = 1_000_000
"""The numbers of one attempt's events."""

_KNOWN = {"delivered", "acknowledged", "text", "worker", "error", "reset"}


class Next(Enum):
    """What is to be done next."""

    WAIT = "wait for more"
    READ = "something is missing: read the stored events"
    END = "nothing more will come"


def attempt_of(seq: int) -> int:
    """The attempt that an event's number belongs to."""
    return max(seq - 1, 0) // STRIDE + 1


@dataclass
class Batch:
    """Events that were stored together."""

    attempt: int
    incarnation: int
    events: List[Dict[str, Any]]

    @classmethod
    def of(cls, headers: Mapping[str, str], payload: bytes) -> Optional["Batch"]:
        """None if it is not one."""
        try:
            attempt, incarnation = int(headers["Mozart-Attempt"]), int(headers["Mozart-Incarnation"])
        except (KeyError, ValueError):
            return None
        return cls(attempt, incarnation, list(_events(payload)))


def _events(payload: bytes) -> Iterable[Dict[str, Any]]:
    for line in payload.split(b"\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        # Those of a later version are left out.
        if isinstance(event, dict) and event.get("type") in _KNOWN and isinstance(event.get("seq"), int):
            yield event


@dataclass(frozen=True)
class Place:
    """A place in the stream of a message. Some events share the number of the one before them: they are counted."""

    seq: int = 0
    of: Optional[int] = None
    """The incarnation, where it began an attempt anew that another one had begun: the numbers come again."""
    nth: int = 0

    def __str__(self) -> str:
        of = "" if self.of is None else f"@{self.of}"
        return f"{self.seq}{of}" + (f".{self.nth}" if self.nth else "")

    @classmethod
    def parse(cls, text: str) -> Optional["Place"]:
        """None: it is the end."""
        found = re.fullmatch(r"(\d{1,20})(?:@(\d{1,20}))?(?:\.(\d{1,20}|done))?", text, re.ASCII)
        if not found:
            raise UsageError(f"there is no position {text!r}", "expected the id of an event, such as 12", "leave it out to begin at the start")
        seq, of, nth = found.groups()
        if nth == "done":
            return None
        return cls(int(seq), None if of is None else int(of), int(nth or 0))

    def is_after(self, known: "Place") -> bool:
        """What another incarnation says always is: the reader is told to forget."""
        return self.of != known.of or (self.seq, self.nth) > (known.seq, known.nth)


@dataclass
class Item:
    """What a reader sees."""

    type: str
    seq: int
    attempt: int
    rest: Dict[str, Any]
    incarnation: Optional[int] = None
    """Of a reset: which one begins the attempt anew, where another one had begun it."""


class Numbers:
    """Gives items their ids, and leaves out those that the reader knows."""

    def __init__(self, known: Place, message_id: str) -> None:
        self._known = known
        self._last = Place(known.seq, known.of)
        self._message_id = message_id

    def event(self, item: Item) -> Optional[Event]:
        """None if the reader knows it."""
        raw = {"type": item.type, **item.rest, "seq": item.seq, "attempt": item.attempt, "messageId": self._message_id}
        if item.type == "done":
            return Event.of(f"{item.seq}.done", raw)
        of = item.incarnation if item.type == "reset" else self._last.of
        is_same = (item.seq, of) == (self._last.seq, self._last.of)
        self._last = Place(item.seq, of, self._last.nth + 1 if is_same else 0)
        # Who knows nothing gets everything.
        if self._known == Place() or self._last.is_after(self._known):
            return Event.of(str(self._last), raw)
        return None


@dataclass
class _Turn:
    """The attempt that is being read."""

    attempt: int
    incarnation: int
    last: int
    """The number of its last event."""
    anew: bool
    """Whether another incarnation had begun it before."""
    text: str = ""
    broken: bool = False
    """Whether its error was shown."""
    gap: bool = False
    """Whether events of it are lost for good."""

    @property
    def place(self) -> Tuple[int, int]:
        return (self.attempt, self.incarnation)


class Reader:
    """One reader of one message, who follows it through its attempts."""

    def __init__(self, known: Place) -> None:
        self._from = known.seq
        self._of = known.of
        self._turn: Optional[_Turn] = None
        self._status = "pending"
        self._final: Optional[Dict[str, Any]] = None
        self.has_ended = False
        self.out: List[Item] = []

    @property
    def last(self) -> int:
        """The number of the last event that the reader knows."""
        return max(self._turn.last if self._turn else 0, self._from)

    @property
    def status(self) -> str:
        return str(self._final["status"]) if self._final else self._status

    def is_behind(self, batch: Batch) -> bool:
        """Whether events are stored that come after all that the reader knows."""
        last = batch.events[-1]["seq"] if batch.events else 0
        if self._turn is None:
            return bool(last > self._from)
        return (batch.attempt, batch.incarnation, last) > (*self._turn.place, self._turn.last)

    def live(self, batch: Batch) -> Next:
        """Events as they come."""
        return self._take(batch, True)

    def stored_part(self, batch: Batch) -> None:
        """Some of the stored events, in order, from the first one on."""
        self._take(batch, False)

    def stored_end(self) -> Next:
        """There are no more: what was not among them is lost."""
        return self._finish()

    def finally_(self, final: Dict[str, Any]) -> Next:
        """The final state. It is stored after all events that it does not bring along."""
        if self.has_ended:
            return Next.END
        turn, tail = self._turn, final.get("tail") or []
        if tail:
            complete = tail[0]["seq"] == (turn.last + 1 if turn else 1)
        else:
            complete = turn is not None and final.get("response") == turn.text
        self._final = final
        return self._finish() if complete else Next.READ

    def exited(self, incarnation: int, how: str) -> None:
        """An incarnation is gone, and what it had to say is stored. If it had the message, the attempt is broken."""
        turn = self._turn
        if not self.has_ended and turn and not turn.broken and turn.incarnation == incarnation:
            self._show(Item("error", self.last, turn.attempt, {"error": how}))
            turn.broken = True

    def close(self, why: str) -> None:
        """The reader is sent away."""
        if not self.has_ended:
            self._show(Item("error", self.last, self._attempt, {"error": why}))
            self._done()

    @property
    def _attempt(self) -> int:
        return self._turn.attempt if self._turn else 1

    def _show(self, item: Item) -> None:
        self.out.append(item)

    def _take(self, batch: Batch, live: bool) -> Next:
        if self.has_ended:
            return Next.END
        ours, current = (batch.attempt, batch.incarnation), self._turn.place if self._turn else None
        if current is not None and ours < current:
            # Late words of an attempt that is over.
            return Next.WAIT
        before = (batch.attempt - 1) * STRIDE
        last = self._turn.last if self._turn and current == ours else before
        first = next((event["seq"] for event in batch.events if event["seq"] > last), None)
        if first is None:
            return Next.WAIT
        missing = first != last + 1
        # Of an earlier attempt the end may be missing: the store knows.
        skipped = current is not None and ours[0] > current[0] + 1
        if live and (missing or skipped or (current is None and ours[0] > 1)):
            return Next.READ
        if current != ours:
            self._begin(ours, batch.events)
        if self._turn:
            self._turn.gap |= missing
        self._events(batch.events)
        return Next.WAIT

    def _begin(self, ours: Tuple[int, int], events: List[Dict[str, Any]]) -> None:
        """An attempt begins with these events. A reader that saw events of an earlier one is told to forget them."""
        attempt, incarnation = ours
        last = (attempt - 1) * STRIDE
        told = bool(events) and events[0]["type"] == "reset"
        knows_earlier = self._turn is not None or self._position is not None
        is_known = self._of is not None and self._position == attempt and incarnation <= self._of
        anew = self._is_anew(attempt, incarnation)
        if anew:
            # What the reader knows of this attempt, another incarnation has said.
            self._from, self._of = last, incarnation
        if knows_earlier and not is_known and not told and last >= self._from:
            self._show(Item("reset", last, attempt, {}, incarnation if anew else None))
        self._turn = _Turn(attempt, incarnation, last, anew)

    def _is_anew(self, attempt: int, incarnation: int) -> bool:
        """Whether an incarnation begins an attempt anew of which the reader knows what an earlier one has said."""
        position = self._position
        if position is not None and attempt < position:
            return False
        if self._of is not None and position == attempt:
            # Its position says of which one it knows.
            return incarnation > self._of
        return self._turn is not None and self._turn.attempt == attempt

    @property
    def _position(self) -> Optional[int]:
        """The attempt that the reader knows events of; None: it knows nothing. Who has been told that an attempt begins, knows of that one."""
        return self._from // STRIDE + 1 if self._from > 0 or self._of is not None else None

    def _events(self, events: List[Dict[str, Any]]) -> None:
        for event in events:
            if event["seq"] > (self._turn.last if self._turn else 0):
                self._event(event)

    def _event(self, event: Dict[str, Any]) -> None:
        seq, kind, turn, attempt = event["seq"], event["type"], self._turn, self._attempt
        if turn:
            turn.last = seq
        if kind in ("delivered", "acknowledged"):
            self._status = kind
            return
        rest = {}
        if kind == "text":
            rest = {"text": event.get("text", "")}
            if turn:
                turn.text += rest["text"]
        elif kind == "worker":
            kind, rest = "event", {"event": event.get("event")}
        elif kind == "error":
            rest = {"error": event.get("error", "")}
        anew = turn.incarnation if kind == "reset" and turn and turn.anew else None
        # What the incarnation before the reader's said in this attempt was taken back.
        is_old = turn is not None and self._of is not None and self._position == attempt and turn.incarnation < self._of
        if seq > self._from and not is_old:
            self._show(Item(kind, seq, attempt, rest, anew))
        if kind == "error" and turn:
            turn.broken = True

    def _finish(self) -> Next:
        """Ends with the final state, if it is known."""
        final = self._final
        if self.has_ended:
            return Next.END
        if final is None:
            return Next.WAIT
        self._tail(final)
        if final["status"] == "completed":
            self._mend(final)
        elif self._turn is None or not self._turn.broken:
            reason = final.get("reason") or final["status"]
            self._show(Item("error", self.last, self._attempt, {"error": reason}))
        self._done()
        return Next.END

    def _tail(self, final: Dict[str, Any]) -> None:
        """The events that came with the final state."""
        tail = [event for event in final.get("tail") or [] if event.get("type") in _KNOWN]
        if not tail:
            return
        current, incarnation = self._turn.place if self._turn else None, final.get("incarnation")
        if incarnation is None:
            incarnation = current[1] if current else 0
        ours = (attempt_of(tail[0]["seq"]), incarnation)
        if current is not None and ours < current:
            # An earlier attempt was first to answer after all: its answer is shown whole.
            return
        if current != ours:
            self._begin(ours, tail)
        if self._turn:
            self._turn.gap |= tail[0]["seq"] > self._turn.last + 1
        self._events(tail)

    def _mend(self, final: Dict[str, Any]) -> None:
        """The texts since the last reset are the answer: also where the worker gave it whole, where events are lost, and where another attempt
        than the last one won."""
        text, seq, attempt, turn = final.get("response") or "", self.last, max(final.get("attempts", 1), 1), self._turn
        if turn is None:
            wrong = shown = False
        elif turn.attempt != attempt:
            wrong = shown = True
        else:
            wrong, shown = turn.gap and turn.text != text, bool(turn.text)
        if wrong:
            self._show(Item("reset", seq, attempt, {}))
        known = self._from > 0 and self._from >= seq
        if text and (wrong or (not shown and not known)):
            self._show(Item("text", seq, attempt, {"text": text}))

    def _done(self) -> None:
        self.has_ended = True
        rest = {"status": self.status}
        for name in ("response", "reason"):
            if self._final and self._final.get(name) is not None:
                rest[name] = self._final[name]
        self._show(Item("done", self.last, self._attempt, rest))
