"""A connection to NATS: made when it is needed, and made again when it is lost. All that knows `nats-py`."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Set, Tuple
from urllib.parse import unquote, urlsplit

from nats import errors
from nats.aio.client import Client as _Client
from nats.aio.msg import Msg

from ._errors import DeniedError, LimitError, MozartError, UnreachableError, UsageError
from ._names import namespace as checked_namespace
from ._names import sender_name
from ._pace import Broken, Pauses

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

CONNECT = 5.0
"""How long a connection may take, in seconds."""
ANSWER = 5.0
"""How long an answer may take."""
PAGE = 256
"""The most records that are read at once."""
PAGE_BYTES = 2 << 20
_REFUSALS = 3
"""How often a login may be refused before that counts: while a server reloads its configuration, it refuses everybody."""
_FULL = {10002, 10023, 10028, 10047, 10077}
_NONE = {10037, 10043}


class Refused(Exception):
    """JetStream has refused a request, and will again."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        self.code = int(error.get("err_code", 0))
        self.description = str(error.get("description", "no reason given"))
        super().__init__(f"{self.description} ({self.code})")

    @property
    def is_full(self) -> bool:
        return self.code in _FULL or "no space left" in self.description

    @property
    def is_wrong_last(self) -> bool:
        """A compare-and-set failed."""
        return self.code in (10071, 10164)


@dataclass(frozen=True)
class Record:
    """A record of a stream."""

    subject: str
    seq: int
    headers: Mapping[str, str]
    payload: bytes
    at: str = ""
    pending: int = 0
    """How many there are after it, where that was told."""


@dataclass(frozen=True)
class Login:
    """Who connects: a user of the fleet, by its credentials file, or whoever the address names."""

    sender: str = "user"
    scope: Optional[str] = None
    """None: it has all rights."""
    seed: str = field(default="", repr=False)
    file: Optional[str] = None
    """Credentials that are not of a user of a fleet."""

    @classmethod
    def of(cls, creds: Optional[str], namespace: str) -> "Login":
        if creds is None:
            return cls()
        try:
            text = Path(creds).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the credentials {creds}", str(error), "a file that `mozart user add` wrote") from error
        token, seed = _section(text, "NATS USER JWT"), _section(text, "USER NKEY SEED")
        try:
            middle = token.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
            login, tags = str(claims["name"]), claims["nats"].get("tags") or []
        except (IndexError, KeyError, ValueError, TypeError, AttributeError):
            raise UsageError(f"{creds} has no credentials", "it has no token and key", "a file that `mozart user add` wrote") from None
        scope = next((tag.partition(":")[2] for tag in tags if str(tag).startswith("mozart-scope:")), None)
        if scope is None:
            return cls(file=creds)
        prefix = f"mozart.{namespace}.user."
        if not login.startswith(prefix):
            what = f"{creds} is not of a user of namespace {namespace}"
            raise UsageError(what, f"it is of {login}", "another namespace, or credentials of a user")
        return cls(sender_name(login[len(prefix) :]), scope, seed)

    def inbox(self, namespace: str) -> str:
        return "_INBOX" if self.scope is None else f"_INBOX.mozart.{namespace}.user.{self.sender}"

    def options(self, namespace: str) -> Dict[str, Any]:
        if self.file is not None:
            return {"user_credentials": self.file}
        if self.scope is None:
            return {}
        return {"nkeys_seed_str": self.seed, "token": f"mozart.{namespace}.user.{self.sender}"}


def _section(text: str, name: str) -> str:
    lines = iter(text.splitlines())
    for line in lines:
        if f"BEGIN {name}" in line:
            return next(lines, "").strip()
    return ""


class _Connection(_Client):
    """A connection that sends no login in the clear where TLS is wanted: a server that does not ask for it is not the right one."""

    must_tls = False

    def _connect_command(self) -> bytes:
        if self.must_tls and not self._server_info.get("tls_required"):
            raise errors.Error("nats: the server has no TLS")
        command: bytes = super()._connect_command()
        return command


class Wire:
    """One connection, until it is lost."""

    def __init__(self, client: _Client, lost: "asyncio.Future[None]") -> None:
        self.client = client
        self.lost = lost
        self._asking: Dict[str, Set["asyncio.Future[None]"]] = {}

    def note(self, error: Exception) -> None:
        """An error that the server tells: of a subject that may not be used, whoever asks there learns it."""
        found = re.search(r"permissions violation for (?:publish|subscription) to \"([^\"]*)\"", str(error), re.IGNORECASE)
        if found:
            for refused in self._asking.get(found.group(1).casefold(), ()):
                if not refused.done():
                    refused.set_result(None)

    async def ask(self, subject: str, payload: bytes, headers: Optional[Dict[str, str]] = None, timeout: float = ANSWER) -> Msg:
        """Asks, and yields the one answer. Raises `Broken` when there is none."""
        asked = asyncio.ensure_future(self.client.request(subject, payload, timeout, headers=headers))
        with _Refusal(self._asking, subject) as refused:
            try:
                await first_of(asked, refused, self.lost)
            finally:
                if not asked.done():
                    asked.cancel()
            return self._answer(asked, refused, subject)

    def _answer(self, asked: "asyncio.Future[Msg]", refused: "asyncio.Future[None]", subject: str) -> Msg:
        if refused.done():
            raise DeniedError("the server refuses it", f"this login may not use {subject}", "a user with another scope; `mozart user ls`")
        if asked.cancelled() or not asked.done():
            raise Broken("the connection is lost")
        error = asked.exception()
        if error is None:
            return asked.result()
        if isinstance(error, errors.NoRespondersError):
            raise Broken(f"nobody answers on {subject}")
        if isinstance(error, (errors.TimeoutError, asyncio.TimeoutError)):
            raise Broken("no answer")
        if isinstance(error, errors.MaxPayloadError):
            raise LimitError("the message is too large", str(error), "send a reference to the data instead")
        if isinstance(error, (errors.Error, OSError)):
            raise Broken(str(error) or type(error).__name__)
        raise error

    async def api(self, what: str, body: Mapping[str, Any]) -> Dict[str, Any]:
        """A request to JetStream. Raises `Refused`."""
        return _read((await self.ask(f"$JS.API.{what}", json.dumps(body).encode())).data)

    async def store(self, subject: str, payload: bytes, headers: Dict[str, str]) -> int:
        """Stores a record, and yields its sequence: it is on disk. Raises `Refused`."""
        return int(_read((await self.ask(subject, payload, headers)).data)["seq"])

    async def last(self, stream: str, subject: str) -> Optional[Record]:
        """The last record of a subject, by the stream's leader."""
        try:
            message = (await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}))["message"]
        except Refused as refused:
            if refused.code in _NONE:
                return None
            raise
        headers = _headers(base64.b64decode(message.get("hdrs") or ""))
        return Record(message["subject"], message["seq"], headers, base64.b64decode(message.get("data") or ""), message["time"])

    async def page(self, stream: str, filter_: str, start: int, most: int = PAGE) -> Tuple[List[Record], bool]:
        """The records of a filter from a sequence on, and whether there are more."""
        subject, inbox = f"$JS.API.DIRECT.GET.{stream}", self.client.new_inbox()
        queue: "asyncio.Queue[Msg]" = asyncio.Queue()
        subscription = await self.listen(inbox, queue.put_nowait)
        body = {"seq": max(start, 1), "batch": most, "max_bytes": PAGE_BYTES, "next_by_subj": filter_}
        records: List[Record] = []
        try:
            with _Refusal(self._asking, subject) as refused:
                await self.client.publish(subject, json.dumps(body).encode(), reply=inbox)
                while True:
                    message = await self._next(queue, refused, subject)
                    headers = message.headers or {}
                    status = headers.get("Status")
                    if status == "404":
                        return records, False
                    if status == "204":
                        return records, headers.get("Nats-Num-Pending") != "0"
                    # Every record names the one before it: what was lost on the way is read again.
                    if status is not None or int(headers.get("Nats-Last-Sequence", 0)) != (records[-1].seq if records else 0):
                        raise Broken(f"a read of {stream} broke off")
                    seq, pending = int(headers["Nats-Sequence"]), int(headers.get("Nats-Num-Pending", 0))
                    records.append(Record(headers["Nats-Subject"], seq, headers, message.data, headers.get("Nats-Time-Stamp", ""), pending))
        except (errors.Error, OSError) as error:
            raise Broken(str(error) or type(error).__name__) from error
        finally:
            await quietly(subscription)

    async def _next(self, queue: "asyncio.Queue[Msg]", refused: "asyncio.Future[None]", subject: str) -> Msg:
        told = asyncio.ensure_future(queue.get())
        try:
            await first_of(told, refused, self.lost, within=ANSWER)
        finally:
            if not told.done():
                told.cancel()
        return self._answer(told, refused, subject)

    async def listen(self, subject: str, heard: Callable[[Msg], None]) -> "Subscription":
        async def hear(message: Msg) -> None:
            heard(message)

        try:
            return await self.client.subscribe(subject, cb=hear)
        except (errors.Error, OSError) as error:
            raise Broken(str(error) or type(error).__name__) from error

    async def flush(self) -> None:
        """Returns once the server has all that was said before."""
        try:
            await asyncio.wait_for(self.client.flush(int(ANSWER)), ANSWER)
        except (errors.Error, OSError, asyncio.TimeoutError) as error:
            raise Broken(str(error) or "no answer") from error

    async def all(self, stream: str, filter_: str, start: int = 1) -> List[Record]:
        """The records of a filter that is known to have few."""
        found: List[Record] = []
        more = True
        while more:
            records, more = await self.page(stream, filter_, found[-1].seq + 1 if found else start)
            more = more and bool(records)
            found.extend(records)
        return found


class _Refusal:
    """A future that is done once the server refuses a subject."""

    def __init__(self, asking: Dict[str, Set["asyncio.Future[None]"]], subject: str) -> None:
        self._asking, self._subject = asking, subject.casefold()
        self._refused: "asyncio.Future[None]" = asyncio.get_running_loop().create_future()

    def __enter__(self) -> "asyncio.Future[None]":
        self._asking.setdefault(self._subject, set()).add(self._refused)
        return self._refused

    def __exit__(self, *_: object) -> None:
        waiting = self._asking.get(self._subject, set())
        waiting.discard(self._refused)
        if not waiting:
            self._asking.pop(self._subject, None)


async def first_of(*futures: "asyncio.Future[Any]", within: Optional[float] = None) -> None:
    """Waits until one of them is done, or the time has passed."""
    await asyncio.wait(futures, timeout=within, return_when=asyncio.FIRST_COMPLETED)


async def quietly(subscription: "Subscription") -> None:
    """Ends a subscription, if there still is one."""
    try:
        await subscription.unsubscribe()
    except (errors.Error, OSError):
        pass


def _read(data: bytes) -> Dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        raise Broken("JetStream's answer is damaged") from None
    error = answer.get("error")
    if not error:
        found: Dict[str, Any] = answer
        return found
    refused = Refused(error)
    # A stream without a leader, a server that starts, the same record being stored right now.
    if refused.code == 10158 or (error.get("code") == 503 and not refused.is_full and refused.code not in (10039, 10076)):
        raise Broken(str(refused))
    raise refused


def _headers(data: bytes) -> Dict[str, str]:
    lines = (line.partition(":") for line in data.decode("utf-8", "replace").split("\r\n")[1:] if ":" in line)
    return {name.strip(): value.strip() for name, _, value in lines}


class Link:
    """What connects: one connection at a time, for each event loop that it is used in."""

    def __init__(self, url: str, login: Login, namespace: str, ca: Optional[str], tls: Optional[ssl.SSLContext], patience: float) -> None:
        self.namespace = checked_namespace(namespace)
        self.login = login
        self.patience = patience
        self._servers, plain = _servers(url)
        self._login = login.options(namespace) or plain
        self.shown = ", ".join(urlsplit(server).netloc for server in self._servers)
        self._must_tls = ca is not None or tls is not None or any(server.startswith("tls:") for server in self._servers)
        self._tls = tls or (_trusting(ca) if self._must_tls else None)
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._connecting: Optional["asyncio.Task[Wire]"] = None
        self._wire: Optional[Wire] = None
        self._next = 0

    def unreachable(self, error: BaseException) -> UnreachableError:
        cause = str(error) or type(error).__name__
        return UnreachableError(f"NATS at {self.shown} cannot be reached", cause, "`mozart up`; `mozart doctor` checks")

    async def wire(self) -> Wire:
        """The connection. Raises `Broken` when there is none just now."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # That of another loop, or of the process that this one was forked from, is left to its end.
            self._loop, self._wire, self._connecting = loop, None, None
        if self._wire is not None and not self._wire.lost.done():
            return self._wire
        if self._connecting is None or self._connecting.done():
            self._connecting = loop.create_task(self._connect())
            # Perhaps nobody waits for it any more once it fails.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Whoever gives up waiting ends it for nobody else.
        self._wire = await asyncio.shield(self._connecting)
        return self._wire

    async def _connect(self) -> Wire:
        refusals = 0
        while True:
            server = self._servers[self._next % len(self._servers)]
            self._next += 1
            try:
                return await self._open(server)
            except errors.AuthorizationError as refused:
                refusals += 1
                if refusals >= _REFUSALS:
                    what = f"NATS at {self.shown} refuses the login"
                    raise DeniedError(what, str(refused), "check the user in the address, or the credentials; `mozart user ls`") from refused
                await asyncio.sleep(0.2)

    async def _open(self, server: str) -> Wire:
        lost: "asyncio.Future[None]" = asyncio.get_running_loop().create_future()
        client, said = _Connection(), []  # type: Tuple[_Connection, List[Exception]]
        wire = Wire(client, lost)
        client.must_tls = self._must_tls

        async def note(error: Exception) -> None:
            del said[:-8]
            said.append(error)
            wire.note(error)

        async def end() -> None:
            if not lost.done():
                lost.set_result(None)

        options = {**self._login, **({"tls": self._tls} if self._tls else {})}
        # It is made again here, on whichever server answers: what was under way is then known to be lost.
        opening = client.connect(
            server,
            error_cb=note,
            disconnected_cb=end,
            closed_cb=end,
            name="mozart-client-python",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=int(CONNECT),
            ping_interval=10,
            max_outstanding_pings=2,
            inbox_prefix=self.login.inbox(self.namespace),
            **options,
        )
        try:
            await asyncio.wait_for(opening, CONNECT)
        except (errors.Error, OSError, asyncio.TimeoutError) as error:
            await self._drop(client)
            words = [str(one) or type(one).__name__ for one in [*said, error]]
            if any("authorization" in word.lower() or "authentication" in word.lower() for word in words):
                raise errors.AuthorizationError() from error
            # What it says last is that no server is left.
            raise Broken(words[0]) from error
        except BaseException:
            await self._drop(client)
            raise
        return wire

    @staticmethod
    async def _drop(client: _Client) -> None:
        try:
            await client.close()
        except (errors.Error, OSError, AssertionError, AttributeError):
            pass

    async def persist(self, attempt: Callable[[Wire], Any]) -> Any:
        """What `attempt` yields, which is called again while the connection breaks, for `patience` seconds."""
        pauses = Pauses(self.patience)
        while True:
            try:
                return await attempt(await self.wire())
            except Broken as broken:
                error: MozartError = self.unreachable(broken)
            await asyncio.sleep(pauses.next(error))

    async def close(self) -> None:
        wire, self._wire = self._wire, None
        if self._connecting is not None and not self._connecting.done() and self._loop is asyncio.get_running_loop():
            self._connecting.cancel()
        if wire is not None and self._loop is asyncio.get_running_loop():
            await self._drop(wire.client)


def _servers(url: str) -> Tuple[List[str], Dict[str, Any]]:
    """The servers of an address, and its login: the first that one of them has is that of all."""
    found, login = [], {}  # type: Tuple[List[str], Dict[str, Any]]
    for server in url.split(","):
        try:
            parts = urlsplit(server.strip())
            is_one = parts.scheme in ("nats", "tls") and parts.hostname and not parts.path.strip("/") and (parts.port or True)
        except ValueError:
            is_one = False
        host = server.strip().rpartition("@")[2] if is_one else server
        if not is_one:
            raise UsageError(f"{host!r} is not the address of a NATS server", "expected nats://HOST:4222", "check the spelling")
        if parts.username is not None and not login:
            user, password = unquote(parts.username), parts.password
            login = {"token": user} if password is None else {"user": user, "password": unquote(password)}
        found.append(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
    return found, login


def _trusting(ca: Optional[str]) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"{ca} has no certificates", str(error), "a file with certificates in PEM") from error
