"""Following one message over NATS: what is stored, and what comes, until it is final."""

from __future__ import annotations

import asyncio
import json
from typing import Any, AsyncIterator, Dict, Iterator, List, Optional, Tuple

from nats.aio.msg import Msg

from ._errors import MozartError
from ._link import Link, Wire, first_of, quietly
from ._models import Event
from ._names import Ref
from ._pace import Broken, Pauses, in_time
from ._reader import Batch, Next, Numbers, Place, Reader
from ._stored import Found, Read, Stored, names_of

LOOK = 2.0
"""How often a final state is looked up while none is announced, in seconds: it is announced at most once."""
_HELD = 1024
"""What is held for a reader who takes it slowly. What comes beyond is read from the store."""


class _Heard:
    """What is heard on some subjects, bounded."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._queue: "asyncio.Queue[Tuple[str, Msg]]" = asyncio.Queue(_HELD)
        self._subscriptions: List[Any] = []
        self.is_cut = False
        """Whether something was left out."""

    async def on(self, kind: str, subject: str) -> None:
        def hear(message: Msg) -> None:
            try:
                self._queue.put_nowait((kind, message))
            except asyncio.QueueFull:
                self.is_cut = True

        self._subscriptions.append(await self._wire.listen(subject, hear))

    async def next(self, within: float) -> Optional[Tuple[str, Msg]]:
        """None: there is nothing. Raises `Broken` once the connection is lost."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        if self._wire.lost.done():
            raise Broken("the connection is lost")
        told = asyncio.ensure_future(self._queue.get())
        try:
            await first_of(told, self._wire.lost, within=within)
            return told.result() if told.done() else None
        finally:
            told.cancel()

    async def end(self) -> None:
        for subscription in self._subscriptions:
            await quietly(subscription)


class Following:
    """A message that is followed, over however many connections."""

    def __init__(self, link: Link, ref: Ref, until: Optional[float]) -> None:
        self._link = link
        self._ref = ref
        self._until = until
        self._pauses = Pauses(link.patience)
        self._found: Optional[Found] = None
        self._read = Read()

    async def events(self, after: Optional[str]) -> AsyncIterator[Event]:
        """What happens to it, after a position."""
        known = Place() if after is None else Place.parse(after)
        if known is None:
            return
        reader, numbers = Reader(known), Numbers(known, self._ref.id)
        while True:
            try:
                async for event in self._connected(reader, numbers):
                    yield event
                return
            except Broken as broken:
                error = self._link.unreachable(broken)
            await self._pause(error)

    async def final(self) -> Tuple[Found, Dict[str, Any]]:
        """The message and its final state, once it has one."""
        while True:
            try:
                return await self._awaited()
            except Broken as broken:
                error = self._link.unreachable(broken)
            await self._pause(error)

    async def _pause(self, error: MozartError) -> None:
        in_time(self._name, self._until)
        await asyncio.sleep(self._pauses.next(error))

    @property
    def _name(self) -> str:
        return str(self._found.key) if self._found else self._ref.id

    async def _open(self) -> Tuple[Wire, Stored, Found]:
        wire = await self._link.wire()
        stored = Stored(wire, await names_of(wire, self._link.namespace))
        if self._found is None:
            found = await stored.one(self._ref)
            self._found = found
            self._ref = Ref(found.key.id, found.key.agent, found.key.sender)
        return wire, stored, self._found

    async def _awaited(self) -> Tuple[Found, Dict[str, Any]]:
        wire, stored, found = await self._open()
        heard = _Heard(wire)
        try:
            await heard.on("done", stored.names.done(found.key))
            await wire.flush()
            while True:
                final = await stored.final(found)
                self._pauses.heard()
                if final is not None:
                    return found, final
                in_time(self._name, self._until)
                told = await heard.next(LOOK)
                said = _final_of(told[1]) if told is not None else None
                if said is not None:
                    return found, said
                in_time(self._name, self._until)
        finally:
            await heard.end()

    async def _connected(self, reader: Reader, numbers: Numbers) -> AsyncIterator[Event]:
        """The events of one connection. Listening comes first, then reading: nothing falls between the two."""
        wire, stored, found = await self._open()
        heard = _Heard(wire)
        try:
            names, key = stored.names, found.key
            await heard.on("events", names.events(key))
            await heard.on("done", names.done(key))
            await heard.on("control", names.control(key.agent))
            await wire.flush()
            final = await stored.final(found)
            if final is not None:
                reader.finally_(final)
            next_ = Next.READ
            while True:
                if next_ is Next.READ and not reader.has_ended:
                    async for batch in stored.batches(key, self._read):
                        self._pauses.heard()
                        reader.stored_part(batch)
                        for event in self._shown(reader, numbers):
                            yield event
                    next_ = reader.stored_end()
                self._pauses.heard()
                for event in self._shown(reader, numbers):
                    yield event
                if reader.has_ended:
                    return
                if next_ is Next.WAIT:
                    in_time(self._name, self._until)
                    next_ = await self._next(heard, stored, found, reader)
        finally:
            await heard.end()

    @staticmethod
    def _shown(reader: Reader, numbers: Numbers) -> Iterator[Event]:
        items, reader.out = reader.out, []
        for item in items:
            event = numbers.event(item)
            if event is not None:
                yield event

    async def _next(self, heard: _Heard, stored: Stored, found: Found, reader: Reader) -> Next:
        """Takes what comes next."""
        told = await heard.next(LOOK)
        if heard.is_cut:
            heard.is_cut = False
            return Next.READ
        if told is None:
            return await self._look(stored, found, reader)
        kind, message = told
        if kind == "events":
            batch = Batch.of(message.headers or {}, message.data)
            return reader.live(batch) if batch is not None else Next.WAIT
        if kind == "done":
            final = _final_of(message)
            return reader.finally_(final) if final is not None else Next.READ
        return await self._control(message, stored, found, reader)

    async def _look(self, stored: Stored, found: Found, reader: Reader) -> Next:
        """What nobody has said: it may have been said while nobody listened."""
        final = await stored.final(found)
        if final is not None:
            return reader.finally_(final)
        last = await stored.last_batch(found.key)
        return Next.READ if last is not None and reader.is_behind(last) else Next.WAIT

    async def _control(self, message: Msg, stored: Stored, found: Found, reader: Reader) -> Next:
        """A change of the agent can end an attempt, or the stream; an answer that was given before takes precedence."""
        try:
            record = json.loads(message.data)
            kind = record["type"]
        except (ValueError, KeyError, TypeError):
            return Next.WAIT
        if kind not in ("agentStopped", "agentRemoved", "incarnationExited"):
            return Next.WAIT
        final = await stored.final(found)
        if final is not None:
            return reader.finally_(final)
        # The incarnation's last words are stored before its exit is.
        async for batch in stored.batches(found.key, self._read):
            reader.stored_part(batch)
        if kind == "incarnationExited":
            reader.exited(record.get("incarnation", 0), _exit(record.get("exit") or {}))
        else:
            how = "stopped" if kind == "agentStopped" else "removed"
            reader.close(f"{found.key.agent} was {how}")
        return Next.WAIT


def _final_of(message: Msg) -> Optional[Dict[str, Any]]:
    try:
        final = json.loads(message.data)
    except ValueError:
        return None
    return final if isinstance(final, dict) and "status" in final else None


def _exit(exit_: Dict[str, Any]) -> str:
    """How a worker ended, as the command line says it."""
    reason, code, signal = exit_.get("reason"), exit_.get("code"), exit_.get("signal")
    if code is None and signal is None:
        return str(reason or "was not running any more when its node started")
    how = f"exit code {code}" if code is not None else f"exit code {int(signal or 0) + 128} (signal {signal})"
    if exit_.get("outOfMemory"):
        how += ", out of memory"
    return f"{reason} ({how})" if reason else how
