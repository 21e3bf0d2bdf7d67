"""The subjects and names that docs/subjects.md promises. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import List, Optional, Tuple

from ._errors import UsageError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_CONVERSATION = re.compile(r"[A-Za-z0-9_.:@-]{1,128}\Z")
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


def _checked(kind: str, pattern: "re.Pattern[str]", expected: str, text: str) -> str:
    if not pattern.match(text):
        raise UsageError(f"{text!r} is no {kind}", f"expected {expected}", "check the spelling")
    return text


def agent_name(text: str) -> str:
    return _checked("name of an agent", _NAME, "1 to 63 lower-case letters, digits and -", text)


def sender_name(text: str) -> str:
    return _checked("name of a sender", _NAME, "1 to 63 lower-case letters, digits and -", text)


def message_id(text: str) -> str:
    return _checked("id of a message", _TOKEN, "1 to 64 letters, digits, - and _", text)


def namespace(text: str) -> str:
    return _checked("namespace", _NAME, "1 to 63 lower-case letters, digits and -", text)


def conversation_id(text: str) -> str:
    return _checked("conversation", _CONVERSATION, "1 to 128 letters, digits and _ - . : @", text)


def shard_of(agent: str, shards: int) -> int:
    """FNV-1a with 32 bits over the name, modulo the number of shards."""
    hashed = 0x811C9DC5
    for byte in agent.encode():
        hashed = (hashed ^ byte) * 0x01000193 % 2**32
    return hashed % shards


def tag_of(conversation: str, message: str) -> str:
    """The tag of a conversation in subjects: FNV-1a with 64 bits over its name, five bits a character; `-` where it was not named."""
    if conversation == message:
        return "-"
    hashed = 0xCBF29CE484222325
    for byte in conversation.encode():
        hashed = (hashed ^ byte) * 0x00000100000001B3 % 2**64
    return "".join(_BASE32[hashed >> (5 * place) & 31] for place in range(12, -1, -1))


@dataclass(frozen=True)
class Key:
    """The whole name of a message."""

    agent: str
    sender: str
    id: str

    def __str__(self) -> str:
        return f"{self.agent}/{self.sender}/{self.id}"


@dataclass(frozen=True)
class Ref:
    """How a message is named: ID, AGENT/ID or AGENT/SENDER/ID."""

    id: str
    agent: Optional[str] = None
    sender: Optional[str] = None

    @classmethod
    def of(cls, name: str) -> "Ref":
        *whose, id_ = name.split("/")
        if len(whose) > 2:
            raise UsageError(f"{name!r} names no message", "expected ID, AGENT/ID or AGENT/SENDER/ID", "check the spelling")
        agent = agent_name(whose[0]) if whose else None
        return cls(message_id(id_), agent, sender_name(whose[1]) if len(whose) > 1 else None)

    def names(self, key: Key) -> bool:
        return self.id == key.id and self.agent in (None, key.agent) and self.sender in (None, key.sender)


@dataclass(frozen=True)
class Names:
    """The names of a fleet: its namespace, and the number of its journal streams."""

    namespace: str
    shards: int = 1

    @property
    def prefix(self) -> str:
        return f"mozart.{self.namespace}"

    def stream(self, what: str) -> str:
        return f"MOZART_{self.namespace}_{what}"

    def journal_stream(self, shard: int) -> str:
        return self.stream("JOURNAL" if self.shards == 1 else f"JOURNAL_{shard}")

    def journal_of(self, agent: str) -> str:
        """The stream that holds the journal of an agent."""
        return self.journal_stream(shard_of(agent, self.shards))

    def _journal(self, rest: str, shard: int) -> str:
        return f"{self.prefix}.journal.{rest}" + (f".{shard}" if self.shards > 1 else "")

    def _of(self, key: Key, rest: str) -> str:
        return self._journal(f"{key.agent}.{key.sender}.{key.id}.{rest}", shard_of(key.agent, self.shards))

    def request(self, key: Key, tag: str) -> str:
        return self._of(key, f"{tag}.request")

    def final(self, key: Key, tag: str) -> str:
        return self._of(key, f"{tag}.final")

    def request_of(self, key: Key) -> str:
        """The request of a message, whatever its conversation."""
        return self._of(key, "*.request")

    def final_of(self, key: Key) -> str:
        return self._of(key, "*.final")

    def all_of(self, key: Key) -> str:
        """All that the journal has of a message."""
        return self._of(key, "*.*")

    def named(self, ref: Ref) -> List[Tuple[str, str]]:
        """Where requests of that name are: streams, and the filters there."""
        agent, sender = ref.agent or "*", ref.sender or "*"
        shards = range(self.shards) if ref.agent is None else [shard_of(ref.agent, self.shards)]
        return [(self.journal_stream(shard), self._journal(f"{agent}.{sender}.{ref.id}.*.request", shard)) for shard in shards]

    def finals_in(self, shard: int) -> str:
        return self._journal("*.*.*.*.final", shard)

    def done(self, key: Key) -> str:
        return f"{self.prefix}.done.{key.agent}.{key.sender}.{key.id}.*"

    def events(self, key: Key) -> str:
        return f"{self.prefix}.events.{key.agent}.{key.sender}.{key.id}"

    def control(self, agent: str) -> str:
        return f"{self.prefix}.control.{agent}"

    def index(self, part: str) -> str:
        return f"{self.prefix}.index.{part}"

    @property
    def disk(self) -> str:
        return f"{self.prefix}.disk"
