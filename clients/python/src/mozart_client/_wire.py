"""HTTP/1.1 and server-sent events, without input or output: bytes in, answers and events out.

The standard library has no HTTP for asyncio. One request a connection is all that is made of it here.
"""

from __future__ import annotations

import datetime
import json
import os
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ._door import Draft
from ._errors import UnreachableError, UsageError
from ._models import Event
from ._pace import Broken, Pauses

LONGEST = 64 << 20
"""The most bytes of a head, an answer or an event."""
SILENT = 45.0
"""How long a stream may say nothing, in seconds: it says that it is alive every 15."""
CONNECT = 10.0
"""How long a connection may take."""


def local(folder: Optional[str]) -> Tuple[Path, Dict[str, Any]]:
    """The folder of the fleet that `mozart up` runs here, and where it is."""
    home = Path(folder or os.environ.get("MOZART_DIR") or Path.home() / ".mozart")
    try:
        note: Dict[str, Any] = json.loads((home / "mozart.json").read_text())
        note["url"], note["namespace"]
    except (OSError, ValueError, KeyError) as error:
        raise UnreachableError("no fleet runs here", f"{home}: {error}", "`mozart up`") from error
    return home, note


@dataclass(frozen=True)
class Target:
    """Where the API is, and the token for it."""

    host: str
    port: int
    tls: bool
    authority: str
    token: str = field(repr=False)

    @classmethod
    def of(cls, url: str, token: str) -> "Target":
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise UsageError(f"{url!r} is not the address of an API", "expected http://HOST:PORT or https://HOST:PORT")
        if not token or any(ord(character) <= 32 or ord(character) > 126 for character in token):
            raise UsageError("the token is none", "it is empty, or has characters that no token has", "`mozart token create`")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, parts.netloc.rpartition("@")[2], token)

    @classmethod
    def local(cls, folder: Optional[str] = None) -> "Target":
        """The fleet that `mozart up` runs here."""
        home, note = local(folder)
        if not note.get("api"):
            raise UnreachableError("the fleet here has no API", "it was started with --api off", "`mozart up --api`")
        try:
            token = (home / "api.token").read_text().strip()
        except OSError as error:
            raise UnreachableError("the fleet here has no API", str(error), "`mozart up`") from error
        return cls.of(note["api"], token)

    def unreachable(self, error: BaseException) -> UnreachableError:
        cause = str(error) or type(error).__name__
        return UnreachableError(f"the API at {self.authority} cannot be reached", cause, "`mozart up`, or `mozart api`")


@dataclass(frozen=True)
class Request:
    """A request."""

    method: str
    path: str
    query: Dict[str, Optional[str]] = field(default_factory=dict)
    body: Optional[Dict[str, Any]] = None
    headers: Dict[str, str] = field(default_factory=dict)

    def bytes(self, target: Target) -> bytes:
        given = {name: value for name, value in self.query.items() if value is not None}
        query = f"?{urllib.parse.urlencode(given)}" if given else ""
        body = b"" if self.body is None else json.dumps(self.body).encode()
        lines = [
            f"{self.method} {self.path}{query} HTTP/1.1",
            f"Host: {target.authority}",
            f"Authorization: Bearer {target.token}",
            "User-Agent: mozart-client-python/0.1",
            "Connection: close",
            f"Content-Length: {len(body)}",
        ]
        if body:
            lines.append("Content-Type: application/json")
        lines.extend(f"{name}: {value}" for name, value in self.headers.items())
        return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body


def api(*parts: str) -> str:
    """A path of the API."""
    return "/api/v1/" + "/".join(urllib.parse.quote(part, safe="") for part in parts)


class Answer:
    """An answer that comes in pieces."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Dict[str, str] = {}
        self.is_whole = False
        self._buffer = b""
        self._left: Optional[int] = None
        self._is_chunked = False

    def feed(self, data: bytes) -> bytes:
        """Takes what was read, which is nothing at the end of the connection; yields what it adds to the body."""
        if self.is_whole:
            return b""
        if not data and not (self.status and self._left is None and not self._is_chunked):
            raise Broken("the connection was closed before the answer was whole")
        self._buffer += data
        if len(self._buffer) > LONGEST:
            raise Broken("the answer is too large")
        if not self.status and not self._head():
            return b""
        if self._is_chunked:
            return b"".join(self._chunks())
        body, self._buffer = self._buffer, b""
        if self._left is None:
            self.is_whole = not data
            return body
        self._left -= len(body)
        self.is_whole = self._left <= 0
        return body

    def _head(self) -> bool:
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return False
        lines = head.decode("latin-1").split("\r\n")
        try:
            self.status = int(lines[0].split(" ", 2)[1])
        except (IndexError, ValueError):
            raise Broken(f"this is no answer over HTTP: {lines[0][:80]!r}") from None
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self._buffer = rest
        self._is_chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        if self.status == 204:
            self._left = 0
        elif not self._is_chunked and "content-length" in self.headers:
            self._left = int(self.headers["content-length"])
        return True

    def _chunks(self) -> Iterator[bytes]:
        while not self.is_whole:
            line, separator, rest = self._buffer.partition(b"\r\n")
            if not separator:
                return
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise Broken("the answer is damaged") from None
            if len(rest) < size + 2:
                return
            yield rest[:size]
            self._buffer = rest[size + 2 :]
            self.is_whole = size == 0


class Sse:
    """Server-sent events that come in pieces."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> List[Event]:
        self._buffer += data
        if len(self._buffer) > LONGEST:
            raise Broken("an event is too large")
        *blocks, self._buffer = self._buffer.split(b"\n\n")
        events = (self._event(block.decode("utf-8")) for block in blocks)
        return [event for event in events if event is not None]

    @staticmethod
    def _event(block: str) -> Optional[Event]:
        fields: Dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields[name] = value[1:] if value.startswith(" ") else value
        if "data" not in fields:
            return None
        return Event.of(fields.get("id", ""), json.loads(fields["data"]))


class Follow:
    """A stream that goes on after its last event, however often it breaks."""

    def __init__(self, first: Optional[Request], name: str, after: Optional[str], patience: float) -> None:
        self._first = first
        self.name = name
        """The message, as it is asked for."""
        self.last_id = after
        """The id of the last event."""
        self.is_done = False
        self.pauses = Pauses(patience)

    def request(self) -> Request:
        """What to ask for now. What sends the message can be repeated, and is, until there is an event."""
        headers = {"Accept": "text/event-stream"}
        if self.last_id is None and self._first is not None:
            return Request("POST", self._first.path, {}, self._first.body, headers)
        if self.last_id is not None:
            headers["Last-Event-ID"] = self.last_id
        return Request("GET", api("messages", self.name, "events"), {}, None, headers)

    def begin(self, headers: Dict[str, str]) -> None:
        """Takes the head of an answer, which says which message it is about."""
        self.name = full_name(headers) or self.name

    def take(self, event: Event) -> None:
        self.pauses.heard()
        self.last_id, self.is_done = event.id, event.type == "done"


def silence(until: Optional[float]) -> float:
    """How long a stream may say nothing, if it is to end by a time."""
    return SILENT if until is None else max(0.01, min(SILENT, until - time.monotonic()))


def is_passing(status: int) -> bool:
    """Whether a status says that it may work later."""
    return status in (429, 503, 504)


def to_send(draft: Draft) -> Request:
    """The request that sends a message."""
    body: Dict[str, Any] = {"agent": draft.agent, "message": draft.text, "messageId": draft.id}
    if draft.conversation is not None:
        body["conversationId"] = draft.conversation
    if draft.deadline is not None:
        body["deadline"] = f"{max(1, round(draft.deadline * 1000))}ms"
    if draft.deliver_at is not None:
        utc = draft.deliver_at.astimezone(datetime.timezone.utc)
        body["deliverAt"] = utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Request("POST", api("messages"), {}, body)


def full_name(headers: Dict[str, str]) -> Optional[str]:
    """The message that an answer is about, in full: AGENT/SENDER/ID. Messages of several agents may have the same id."""
    path, found, name = headers.get("location", "").partition(api("messages") + "/")
    return urllib.parse.unquote(name) if found and not path else None


def after_page(headers: Dict[str, str]) -> Optional[str]:
    """The parameter `after` of the next page; none if this is the last."""
    link = headers.get("link", "")
    if 'rel="next"' not in link:
        return None
    query = urllib.parse.urlsplit(link[link.index("<") + 1 : link.index(">")]).query
    return urllib.parse.parse_qs(query).get("after", [None])[0]
