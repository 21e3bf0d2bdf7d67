"""The fleet over NATS, by what docs/subjects.md promises."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from datetime import datetime, timedelta, timezone
from typing import Any, AsyncIterator, Dict, List, Optional

from ._door import Draft
from ._errors import ConflictError, FailedError, LimitError, MozartError, NotFoundError, UnreachableError, UsageError, of_problem
from ._follow import Following
from ._link import ANSWER, Link, Login, Refused, Wire
from ._models import Agent, Event, Message
from ._names import Key, Names, Ref, agent_name, conversation_id, message_id, tag_of
from ._pace import Broken, Pauses, end_of, new_id
from ._reader import Batch
from ._room import Room, space
from ._stored import Found, Stored, names_of

_TEXT, _RECORD = 1 << 20, (1 << 20) - 4096
"""The largest text of a message, and the largest record."""
_PAGE = 200
"""Agents of one answer."""
_KNOWN = 5.0
"""How long an agent that was there counts as there, in seconds."""
_TELL = 2.0
"""How long supervisors may take to hear that a message is cancelled: it is, whether they hear it or not."""


class NatsDoor:
    """The fleet, asked over NATS."""

    def __init__(
        self,
        url: str,
        *,
        creds: Optional[str],
        ca: Optional[str],
        tls: Optional[ssl.SSLContext],
        namespace: str,
        patience: float,
        timeout: float,
    ) -> None:
        self._login = Login.of(creds, namespace)
        self._link = Link(url, self._login, namespace, ca, tls, patience)
        self._namespace, self._patience, self._timeout = namespace, patience, timeout
        self._rooms: Dict[str, Room] = {}
        self._there: Dict[str, float] = {}

    # Agents.

    async def agents(self) -> List[Agent]:
        found: List[Agent] = []
        after: Optional[str] = None
        while True:
            page = await self._ask({"op": "ps", "agent": None, "brief": False, "limit": _PAGE, "after": after}, "psPage")
            found.extend(Agent.of(row) for row in page["rows"])
            if not page["more"] or not page["rows"]:
                return found
            after = page["rows"][-1]["agent"]

    async def agent(self, name: str) -> Dict[str, Any]:
        detail: Dict[str, Any] = await self._ask({"op": "inspect", "agent": agent_name(name)}, "inspect")
        return detail

    # Messages.

    async def send(self, draft: Draft) -> Message:
        envelope = self._envelope(draft)
        key = Key(draft.agent, self._login.sender, draft.id)
        await self._require(draft.agent)
        known = await self._link.persist(lambda wire: self._known(wire, key)) if draft.is_named else None
        if known is not None:
            same(known.envelope, envelope)
            return await self.message(str(key))
        payload = json.dumps(envelope, ensure_ascii=False).encode()
        if len(payload) > _RECORD:
            raise _too_large(f"as a record it has {len(payload)} bytes, at most {_RECORD} fit")
        there = await self._store(key, envelope, payload)
        if there is None:
            return _message(key, envelope, "pending", None)
        same(there, envelope)
        # An earlier try of this very call, or of another one.
        return await self.message(str(key))

    def _envelope(self, draft: Draft) -> Dict[str, Any]:
        if draft.deliver_at is not None:
            raise UsageError("deliver_at does not work over NATS", "messages for later are stored by the API", "a client with the address of the API")
        try:
            size = len(draft.text.encode())
        except UnicodeEncodeError as error:
            raise UsageError("the message is no text", str(error), "text that UTF-8 can write") from error
        if size > _TEXT:
            raise _too_large(f"its text has {size} bytes, at most {_TEXT} fit")
        created = datetime.now(timezone.utc)
        envelope = {
            "messageId": message_id(draft.id),
            "agent": agent_name(draft.agent),
            "sender": self._login.sender,
            "kind": "chat",
            "conversationId": draft.id if draft.conversation is None else conversation_id(draft.conversation),
            "message": draft.text,
            "createdAt": _time(created),
        }
        if draft.deadline is not None:
            envelope["deadline"] = _time(created + timedelta(milliseconds=max(1, round(draft.deadline * 1000))))
        return envelope

    async def _known(self, wire: Wire, key: Key) -> Optional[Found]:
        """A message that may have been sent before, however long ago. Raises `ConflictError` where the id was given to one for another agent."""
        stored = await self._stored(wire)
        mine = None
        for found in await stored.find(Ref(key.id)):
            if found.key == key:
                mine = found
            elif found.key.sender == key.sender:
                raise ConflictError(f"another message has the id {key.id}", f"it is to {found.key.agent}", "another id")
        return mine

    async def _store(self, key: Key, envelope: Dict[str, Any], payload: bytes) -> Optional[Dict[str, Any]]:
        """Stores a message, if there is none of its name; else yields that one. On disk when this returns."""
        what = f"cannot store message {key.id}"
        pauses = Pauses(self._patience)
        while True:
            try:
                wire = await self._link.wire()
                names = await names_of(wire, self._namespace)
                if not await self._has_room(wire, names, key.agent, len(payload)):
                    # What is stored already takes no room.
                    there = await self._request(wire, names, key)
                    if there is None:
                        raise LimitError(what, self._full, "`mozart usage --storage` shows what uses the space")
                    return there
                headers = {
                    "Nats-Expected-Last-Subject-Sequence": "0",
                    "Nats-Expected-Last-Subject-Sequence-Subject": names.request_of(key),
                }
                await wire.store(names.request(key, tag_of(envelope["conversationId"], key.id)), payload, headers)
                return None
            except Refused as refused:
                if not refused.is_wrong_last:
                    raise _refused(what, refused) from refused
                there = await self._link.persist(lambda wire: self._there_is(wire, key))
                if there is not None:
                    found: Dict[str, Any] = there
                    return found
                # Another write to the subject is still on its way through the cluster.
                error: MozartError = UnreachableError(what, "the journal has no leader that stores it", "send it again")
            except Broken as broken:
                error = self._unclear(key, broken)
            await asyncio.sleep(pauses.next(error))

    def _unclear(self, key: Key, broken: Broken) -> MozartError:
        found = self._link.unreachable(broken)
        return UnreachableError(found.what, found.cause, f"send it again with message_id={key.id!r}: it may be stored, and is stored once")

    async def _there_is(self, wire: Wire, key: Key) -> Optional[Dict[str, Any]]:
        return await self._request(wire, await names_of(wire, self._namespace), key)

    async def _request(self, wire: Wire, names: Names, key: Key) -> Optional[Dict[str, Any]]:
        record = await wire.last(names.journal_of(key.agent), names.request_of(key))
        if record is None:
            return None
        found: Dict[str, Any] = json.loads(record.payload)
        return found

    async def _require(self, agent: str) -> None:
        """Demands that there is such an agent. Without a supervisor, the control log tells, as far as it goes back."""
        now = time.monotonic()
        if self._there.get(agent, 0) > now:
            return
        try:
            await self._ask({"op": "ps", "agent": agent, "brief": True}, "ps", patience=0)
        except UnreachableError:
            await self._link.persist(lambda wire: self._is_logged(wire, agent))
            return
        if len(self._there) >= 1000:
            self._there.clear()
        self._there[agent] = now + _KNOWN

    async def _is_logged(self, wire: Wire, agent: str) -> None:
        names = await names_of(wire, self._namespace)
        stream = names.stream("CONTROL")
        last = await wire.last(stream, names.control(agent))
        if last is None:
            state = (await wire.api(f"STREAM.INFO.{stream}", {}))["state"]
            # Otherwise its records may be among those that a snapshot has replaced.
            is_gone = state["first_seq"] <= 1
        else:
            is_gone = json.loads(last.payload).get("type") == "agentRemoved"
        if is_gone:
            raise NotFoundError(f"no agent {agent!r}", "none of that name is registered", "`mozart ps -a`")

    # How full the journal is.

    _full = ""

    async def _has_room(self, wire: Wire, names: Names, agent: str, size: int) -> bool:
        stream = names.journal_of(agent)
        room = self._rooms.setdefault(stream, Room())
        found = room.take(size, time.monotonic())
        if found is None:
            await self._measure(wire, names, stream, room)
            found = room.take(size, time.monotonic())
        if found is not None and found.left is not None and found.left < 0:
            self._full = found.cause
            return False
        return True

    async def _measure(self, wire: Wire, names: Names, stream: str, room: Room) -> None:
        info, account = await asyncio.gather(wire.api(f"STREAM.INFO.{stream}", {}), wire.api("INFO", {}))
        disk: Optional[Dict[str, Any]] = None
        try:
            disk = json.loads((await wire.ask(names.disk, b"", timeout=0.25)).data)
        except (Broken, ValueError):
            pass
        found, is_rough = space(info, account, disk, None)
        if is_rough:
            shard = int(stream.rpartition("_")[2]) if names.shards > 1 else 0
            first, _ = await wire.page(stream, names.finals_in(shard), 1, 1)
            found, _ = space(info, account, disk, first[0].pending + 1 if first else 0)
        room.learn(found, time.monotonic())

    # What becomes of a message.

    def stream(self, draft: Draft) -> AsyncIterator[Event]:
        async def events() -> AsyncIterator[Event]:
            sent = await self.send(draft)
            async for event in self.events(sent.name, None, None):
                yield event

        return events()

    def events(self, name: str, after: Optional[str], until: Optional[float]) -> AsyncIterator[Event]:
        return self._following(name, until).events(after)

    async def wait(self, name: str, until: Optional[float]) -> Message:
        found, final = await self._following(name, until).final()
        return _message(found.key, found.envelope, final["status"], final)

    def _following(self, name: str, until: Optional[float]) -> Following:
        return Following(self._link, Ref.of(name), until)

    async def _stored(self, wire: Wire) -> Stored:
        return Stored(wire, await names_of(wire, self._namespace))

    async def message(self, name: str) -> Message:
        ref = Ref.of(name)

        async def look(wire: Wire) -> Message:
            stored = await self._stored(wire)
            found = await stored.one(ref)
            final = await stored.final(found)
            if final is not None:
                return _message(found.key, found.envelope, final["status"], final)
            return _message(found.key, found.envelope, await stored.status(found.key), None)

        shown: Message = await self._link.persist(look)
        return shown

    async def cancel(self, name: str) -> Message:
        ref, author = Ref.of(name), f"python.{new_id()}"

        async def end(wire: Wire) -> Found:
            stored = await self._stored(wire)
            found = await stored.one(ref)
            last = await wire.last(stored.names.stream("EVENTS"), stored.names.events(found.key))
            batch = Batch.of(last.headers, last.payload) if last else None
            final = {
                "status": "cancelled",
                "reason": "cancelled by the user",
                "attempts": batch.attempt if batch else 0,
                "at": _time(datetime.now(timezone.utc)),
            }
            try:
                await stored.settle(found, final, author)
            except Refused as refused:
                raise _refused(f"cannot cancel message {found.key.id}", refused) from refused
            return found

        found: Found = await self._link.persist(end)
        key = found.key
        try:
            # The worker is told. If nobody hears it, its answer is refused when it wants to store it.
            asked = {"op": "cancelled", "agent": key.agent, "sender": key.sender, "messageId": key.id}
            await asyncio.wait_for(self._ask(asked, None, patience=0), _TELL)
        except (MozartError, asyncio.TimeoutError):
            pass
        return Message(key.id, key.agent, "cancelled", None, "cancelled by the user", {}, str(key))

    # The supervisors.

    async def _ask(self, question: Dict[str, Any], expected: Optional[str], patience: Optional[float] = None) -> Any:
        """What one of the supervisors answers. A question that one does not answer is asked of all of them."""
        pauses = Pauses(self._patience if patience is None else patience)
        is_safe, to_all = expected is not None, False
        end = end_of(self._timeout)
        while True:
            try:
                wire = await self._link.wire()
                subject = self._query(to_all)
                answer = await wire.ask(subject, json.dumps(question).encode(), timeout=2.0 if is_safe and not to_all else ANSWER)
                reply = json.loads(answer.data)
            except Broken as broken:
                error: MozartError = UnreachableError(
                    "no supervisor answers", str(broken), "`mozart up`, or `mozart supervisor`; messages can be sent without one"
                )
                to_all = is_safe
            except ValueError as damaged:
                raise FailedError("the supervisor's answer does not parse", str(damaged), "the same version everywhere") from damaged
            else:
                value = reply.get("value")
                if reply.get("result") == "error":
                    raise of_problem(value)
                if expected is not None and reply.get("result") != expected:
                    raise FailedError("the supervisor's answer is another one", f"it is {reply.get('result')}", "the same version everywhere")
                return value
            if end is not None and time.monotonic() > end:
                raise error
            await asyncio.sleep(pauses.next(error))

    def _query(self, to_all: bool) -> str:
        parts = [f"mozart.{self._namespace}.query"] + ["_all"] * to_all
        if self._login.scope is not None:
            parts += [self._login.scope, self._login.sender]
        return ".".join(parts)

    async def close(self) -> None:
        await self._link.close()


def same(there: Dict[str, Any], ours: Dict[str, Any]) -> None:
    """Raises `ConflictError` unless both are the same message. Times are ignored: a retry is later."""
    for name, what in (("message", "text"), ("conversationId", "conversation"), ("kind", "kind")):
        if there.get(name) != ours[name]:
            id_ = ours["messageId"]
            raise ConflictError(f"another message to {ours['agent']} has the id {id_}", f"its {what} differs", "another message_id")


def _message(key: Key, envelope: Dict[str, Any], status: str, final: Optional[Dict[str, Any]]) -> Message:
    final = final or {}
    raw = {**envelope, "messageId": key.id, "agent": key.agent, "sender": key.sender, "status": status}
    raw.update({name: final[name] for name in ("response", "reason", "attempts") if final.get(name) is not None})
    return Message.of(raw, str(key))


def _time(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _too_large(cause: str) -> LimitError:
    return LimitError("the message is too large", cause, "send a reference to the data instead")


def _refused(what: str, refused: Refused) -> MozartError:
    if refused.is_full:
        return LimitError(what, refused.description, "`mozart usage --storage` shows what uses the space")
    return FailedError(what, str(refused), "`mozart doctor`")
