"""What JetStream has of messages: in the journal, or else in HISTORY. A message is in HISTORY before it leaves the journal, so that this order
misses nothing."""

from __future__ import annotations

import asyncio
import json
import weakref
from dataclasses import dataclass
from typing import Any, AsyncIterator, Dict, List, Optional

from . import _archive
from ._errors import ConflictError, NotFoundError, UnreachableError, UsageError
from ._link import Record, Refused, Wire
from ._names import Key, Names, Ref, tag_of
from ._pace import Broken
from ._reader import Batch

_FORMAT = "2"
"""The format of streams that this is written for."""
_TRIES = 50


@dataclass(frozen=True)
class Found:
    """A message that was looked for."""

    key: Key
    envelope: Dict[str, Any]
    seq: Optional[int]
    """Where it is in the journal; None: it has left it."""
    final: Optional[Dict[str, Any]] = None
    """What has become of it, where it has left the journal."""

    @property
    def tag(self) -> str:
        return tag_of(self.envelope["conversationId"], self.key.id)


@dataclass(frozen=True)
class _Fleet:
    names: Names
    is_replicated: bool


_KNOWN: "weakref.WeakKeyDictionary[Wire, Dict[str, _Fleet]]" = weakref.WeakKeyDictionary()


async def _fleet(wire: Wire, namespace: str) -> _Fleet:
    """What a fleet is like, asked once a connection."""
    known = _KNOWN.setdefault(wire, {})
    if namespace not in known:
        try:
            config = (await wire.api(f"STREAM.INFO.MOZART_{namespace}_CONTROL", {}))["config"]
        except Refused as refused:
            what = f"there is no fleet called {namespace} on this NATS server"
            raise UnreachableError(what, str(refused), "`mozart up`, or check the namespace") from refused
        metadata = config.get("metadata") or {}
        if metadata.get("mozart-format") != _FORMAT:
            cause = f"its streams have format {metadata.get('mozart-format')}, and this package knows {_FORMAT}"
            raise UsageError(f"the fleet {namespace} is of another version", cause, "the version of mozart-client that belongs to it")
        names = Names(namespace, int(metadata.get("mozart-shards", "1")))
        known[namespace] = _Fleet(names, config.get("num_replicas", 1) > 1)
    return known[namespace]


async def names_of(wire: Wire, namespace: str) -> Names:
    """The names of a fleet."""
    return (await _fleet(wire, namespace)).names


@dataclass
class Read:
    """How far the events of a message were read: the last record."""

    seq: int = 0
    at: str = ""


class Stored:
    """Reads of messages, over one connection."""

    def __init__(self, wire: Wire, names: Names) -> None:
        self.wire = wire
        self.names = names

    async def find(self, ref: Ref) -> List[Found]:
        """The messages of that name."""
        hot = await self._hot(ref)
        cold = await self._cold(ref)
        if not hot and not cold:
            # What left the journal between the two looks.
            cold = await self._cold(ref)
        known = {found.key for found in hot}
        return hot + [found for found in cold if found.key not in known]

    async def one(self, ref: Ref) -> Found:
        """The one message of that name."""
        found: List[Found] = []
        if ref.agent is not None and ref.sender is not None:
            # A whole name needs no search of the history while the journal has it.
            record = await self.wire.last(self.names.journal_of(ref.agent), self.names.request_of(Key(ref.agent, ref.sender, ref.id)))
            found = [_of_request(record)] if record is not None else []
        found = found or await self.find(ref)
        if not found:
            cause = "there is no message with that id, or it is no longer kept"
            raise NotFoundError(f"no message {ref.id}", cause, "`mozart journal ls`")
        if len(found) > 1:
            names = ", ".join(str(one.key) for one in found[:8])
            raise NotFoundError(f"{len(found)} messages have the id {ref.id}", names, "name one of them in full")
        return found[0]

    async def _hot(self, ref: Ref) -> List[Found]:
        pages = [self.wire.all(stream, filter_) for stream, filter_ in self.names.named(ref)]
        records = [record for page in await asyncio.gather(*pages) for record in page]
        return [_of_request(record) for record in records]

    async def _cold(self, ref: Ref) -> List[Found]:
        index, history = self.names.stream("INDEX"), self.names.stream("HISTORY")
        places, start, more = set(), 1, True
        while more:
            page, more = await self.wire.page(index, self.names.index(_archive.part_of(ref.id)), start)
            for record in page:
                start = record.seq + 1
                places.update(_archive.places(ref.id, record.payload))
        found: Dict[Key, Found] = {}
        # The same id may have been sent again, long after: the last one counts.
        for place in sorted(places):
            records, _ = await self.wire.page(history, ">", place, 2)
            if not records or records[0].seq != place:
                continue
            parts = [(record.subject, record.seq, record.headers, record.payload) for record in records]
            whole = _archive.message(parts)
            if whole is None or "request" not in whole:
                continue
            key = Key(whole["key"]["agent"], whole["key"]["sender"], whole["key"]["messageId"])
            if ref.names(key):
                found[key] = Found(key, whole["request"], None, whole["final"])
        return list(found.values())

    async def final(self, found: Found) -> Optional[Dict[str, Any]]:
        """What has become of a message; None: it is open. Raises `NotFoundError` where it is no longer kept."""
        if found.final is not None:
            return found.final
        last = await self.wire.last(self.names.journal_of(found.key.agent), self.names.all_of(found.key))
        if last is not None:
            return _final(last) if ".final" in last.subject else None
        cold = await self._cold(Ref(found.key.id, found.key.agent, found.key.sender))
        if not cold:
            raise NotFoundError(f"no message {found.key.id}", "it is no longer kept", "`mozart journal ls`")
        return cold[0].final

    async def batches(self, key: Key, read: Optional[Read] = None) -> AsyncIterator[Batch]:
        """The stored events of a message, in parts. `read`: what was read before, over whichever connection, is not read again."""
        stream, filter_, read = self.names.stream("EVENTS"), self.names.events(key), read or Read()
        # The end of this stream may be lost with its server, and its sequences given again: the record itself says whether it is the same.
        is_checked = read.seq == 0
        while True:
            records, more = await self.wire.page(stream, filter_, read.seq + 1 if is_checked else read.seq, 64)
            if not is_checked:
                is_checked = True
                if not records or (records[0].seq, records[0].at) != (read.seq, read.at):
                    read.seq, read.at, more = 0, "", True
                    continue
                records = records[1:]
            for record in records:
                read.seq, read.at = record.seq, record.at
                batch = Batch.of(record.headers, record.payload)
                if batch is not None:
                    yield batch
            if not more:
                # A replica may lag: that there is nothing more, the leader says.
                last = await self.wire.last(stream, filter_)
                if last is None or last.seq <= read.seq:
                    return
                if not records:
                    raise Broken(f"{stream} lags")

    async def last_batch(self, key: Key) -> Optional[Batch]:
        last = await self.wire.last(self.names.stream("EVENTS"), self.names.events(key))
        return Batch.of(last.headers, last.payload) if last else None

    async def status(self, key: Key) -> str:
        """Of a message that is not final: the last of `delivered` and `acknowledged`."""
        status = "pending"
        async for batch in self.batches(key):
            for event in batch.events:
                if event["type"] in ("delivered", "acknowledged"):
                    status = event["type"]
        return status

    async def settle(self, found: Found, final: Dict[str, Any], author: str) -> None:
        """Stores a final state, if there is none yet, while the request is where it was found. Raises `ConflictError` where another was first.

        `author` makes a repeated try recognisable."""
        what, key = f"cannot cancel message {found.key.id}", found.key
        for _try in range(_TRIES):
            there = await self.wire.last(self.names.journal_of(key.agent), self.names.final_of(key))
            if there is not None and there.headers.get("Mozart-Author") == author:
                return
            first = _final(there) if there is not None else await self.final(found)
            if first is not None:
                cause = f"it is already {first['status']}, since {first.get('at')}"
                raise ConflictError(what, cause, f"`mozart journal show {key}`")
            headers = {
                "Nats-Expected-Last-Subject-Sequence": str(found.seq),
                "Nats-Expected-Last-Subject-Sequence-Subject": self.names.all_of(key),
                "Mozart-Author": author,
            }
            try:
                await self.wire.store(self.names.final(key, found.tag), json.dumps(final).encode(), headers)
                return
            except Refused as refused:
                if not refused.is_wrong_last:
                    raise
            await asyncio.sleep(0.05)
        raise Broken("another write to the message is under way")


def _of_request(record: Record) -> Found:
    # Identity comes from the subject, never from a body.
    agent, sender, id_ = record.subject.split(".")[3:6]
    try:
        envelope = json.loads(record.payload)
        envelope["conversationId"]
    except (ValueError, KeyError, TypeError):
        envelope = {"conversationId": id_, "message": "", "kind": "chat"}
    return Found(Key(agent, sender, id_), envelope, record.seq)


def _final(record: Record) -> Dict[str, Any]:
    """What cannot be read is final nevertheless: the message failed."""
    try:
        final = json.loads(record.payload)
        if final["status"] in ("completed", "failed", "cancelled", "expired"):
            found: Dict[str, Any] = final
            return found
        why = f"unknown status {final['status']!r}"
    except (ValueError, KeyError, TypeError) as error:
        why = str(error)
    return {"status": "failed", "reason": f"its final state cannot be read: {why}", "attempts": 0, "at": record.at}
