"""What the API tells, as objects. `raw` has all of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Union

from ._errors import FailedError

FINAL = ("completed", "failed", "cancelled", "expired")


@dataclass(frozen=True)
class Agent:
    """An agent."""

    name: str
    state: str
    """starting, running, error, stopping or stopped."""
    inbox: int
    """Messages that wait for it."""
    inflight: int
    """Messages that it is at."""
    reason: Optional[str] = None
    """Why it is in that state, where that is not obvious."""
    raw: Dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, raw: Dict[str, Any]) -> "Agent":
        return cls(raw["agent"], raw["state"], raw.get("inbox", 0), raw.get("inflight", 0), raw.get("reason"), raw)


@dataclass(frozen=True)
class Message:
    """A message, and what is known of its answer."""

    message_id: str
    agent: str
    status: str
    """pending, delivered, acknowledged, completed, failed, cancelled or expired."""
    response: Optional[str] = None
    """The answer, once there is one."""
    reason: Optional[str] = None
    """Why there is no answer."""
    raw: Dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    name: str = field(default="", compare=False)
    """AGENT/SENDER/ID: messages of several agents or senders may have the same id."""

    @classmethod
    def of(cls, raw: Dict[str, Any], name: Optional[str] = None) -> "Message":
        id_, agent = raw["messageId"], raw["agent"]
        if name is None:
            name = f"{agent}/{raw['sender']}/{id_}" if "sender" in raw else f"{agent}/{id_}"
        return cls(id_, agent, raw["status"], raw.get("response"), raw.get("reason"), raw, name)

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self.status in FINAL

    def text(self) -> str:
        """The answer.

        Raises `FailedError` where there is none.
        """
        if self.status != "completed":
            what = f"message {self.message_id} is {self.status}"
            raise FailedError(what, self.reason or "", f"`mozart explain {self.message_id}`")
        return self.response or ""


MessageOrId = Union[Message, str]
"""A message; or its id, alone or in full as in `Message.name`."""


def name_of(message: MessageOrId) -> str:
    """How a message is asked for: in full, where that is known."""
    return message.name if isinstance(message, Message) else message


@dataclass(frozen=True)
class Event:
    """An event of a message's stream."""

    id: str
    """Its position: a stream that is opened after it begins with the next one."""
    type: str
    """text, event, error, reset (forget what came before: another attempt begins) or done."""
    message_id: str
    text: str = ""
    """The piece of the answer, of a `text`."""
    status: Optional[str] = None
    """The status of the message, of a `done`."""
    response: Optional[str] = None
    """The whole answer, of a `done`."""
    reason: Optional[str] = None
    """Why there is no answer, of a `done`; what went wrong, of an `error`."""
    raw: Dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, id_: str, raw: Dict[str, Any]) -> "Event":
        return cls(
            id_,
            raw["type"],
            raw["messageId"],
            raw.get("text", ""),
            raw.get("status"),
            raw.get("response"),
            raw.get("reason") or raw.get("error"),
            raw,
        )
