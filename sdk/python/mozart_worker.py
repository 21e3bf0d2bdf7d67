"""Workers for Mozart in Python: plain functions or coroutines. Standard library only, in one file that can be copied.

    from mozart_worker import Turn, Worker

    def answer(turn: Turn) -> None:
        turn.say("you said ")
        turn.say(turn.text)

    Worker(answer).run()

The response is what `answer` returns, or else what it has passed to `say`. Each turn of a plain function has a thread of its
own, each turn of a coroutine function a task; CONCURRENCY in the soul limits how many there are. An exception fails the turn for
good; `Retry` asks for another attempt. While the worker runs, stdin and stdout belong to the protocol: what is printed goes to
stderr, and appears in `mozart logs`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import threading
import time
import traceback
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import (
    Any, Awaitable, BinaryIO, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, TypeVar, Union, cast, overload,
)

__all__ = ["Answered", "AsyncTurn", "Cancelled", "Failed", "History", "Past", "Retry", "Turn", "Unavailable", "Worker"]

_T = TypeVar("_T")
_Line = Dict[str, Any]
_Reply = Tuple[str, str]
# The longest name of a request or a step, in bytes.
_LONGEST = 256


class Retry(Exception):
    """The turn failed, and another attempt may help: after the delay of ATTEMPTS, or `after` seconds."""

    def __init__(self, reason: str = "another attempt may help", after: Optional[float] = None) -> None:
        super().__init__(reason)
        self.after = after


class Failed(Exception):
    """What a turn has asked for was not done: the reason."""


class Unavailable(Failed, Retry):
    """The same, and it may be done later: nobody answered in time, or there was no room. A turn that ends with it is tried again."""


class Cancelled(Exception):
    """The turn was cancelled, or its deadline has passed. Coroutines get `asyncio.CancelledError` instead."""


class Answered(str):
    """What a person has answered."""

    is_default: bool = False
    """Whether nobody did, and it is the default."""


@dataclass(frozen=True)
class Past:
    """A finished message of a conversation."""

    message_id: str
    sender: str
    kind: str
    """`chat`, `route` or `trigger`."""
    message: str
    response: Optional[str]
    """The answer, if the message was completed."""
    status: str
    """`completed`, `failed`, `cancelled` or `expired`."""
    reason: Optional[str]
    """Why, if the message was not completed."""
    at: str
    """When it was stored: RFC 3339, UTC."""


@dataclass(frozen=True)
class History:
    """A page of what was said in a conversation."""

    turns: List[Past]
    """The newest first."""
    next: Optional[str]
    """The `before` of the page before; `None` if there are no earlier messages."""


class _Turn:
    """What turns of both kinds have in common."""

    def __init__(self, worker: "Worker", line: _Line) -> None:
        self._worker = worker
        self._said: List[str] = []
        self._asked = 0
        self._waiting: set[Future[_Line]] = set()
        self._ended = False
        self.kind: str = line["type"]
        """`chat`, or `route` for a question from another agent."""
        self.message_id: str = line["messageId"]
        self.conversation_id: Optional[str] = line.get("conversationId")
        """`None` for a question from another agent."""
        self.sender: str = line["fromId"]
        self.text: str = line["message"]
        self.number: Optional[int] = line.get("turn")
        """How many turns the conversation had before this one; `None` if that is not known."""
        self.scheduled_for: Optional[str] = line.get("scheduledFor")
        """The time that a message from a schedule is for: RFC 3339, UTC."""
        self.traceparent: Optional[str] = line.get("traceparent")
        self.steps: Dict[str, Any] = {step["key"]: step["result"] for step in line.get("steps", ())}
        """The results of the steps that are stored, also by earlier attempts, by their keys."""

    @property
    def agent(self) -> _Line:
        """The soul: `name`, `model`, `identity`, `ifThen`, `schedule`, `skills`, `sanctums`."""
        return self._worker.agent

    def say(self, text: str) -> None:
        """Streams a piece of the answer."""
        self._said.append(text)
        self.event({"type": "text", "text": text})

    def event(self, event: Mapping[str, Any]) -> None:
        """Streams something that is not text, such as a tool call: any object with a `type`."""
        self._send("event", event=event)

    def progress(self) -> None:
        """Restarts the deadline of the turn."""
        self._send("progress")

    def step_id(self, key: str) -> str:
        """The same in every attempt, and of no other turn: an idempotency key for the effect of a step."""
        return f"{self.message_id}.{key}"

    def _send(self, kind: str, **fields: Any) -> None:
        if self._ended:
            raise RuntimeError(f"the turn {self.message_id} has ended")
        self._worker._send(kind, messageId=self.message_id, **fields)

    def _next_id(self, key: Optional[str]) -> str:
        # The same in every attempt: what was answered before a crash is not asked again.
        self._asked += key is None
        return _name(f"{self.message_id}.{self._asked if key is None else key}")

    def _request(self, kind: str, reply: _Reply, **fields: Any) -> Future[_Line]:
        future: Future[_Line] = Future()
        if self._worker._waiting.setdefault(reply, (self, future))[1] is not future:
            raise ValueError(f"{reply[1]} is waited for already: use another key")
        self._waiting.add(future)
        try:
            self._send(kind, **fields)
        except BaseException:
            self._worker._waiting.pop(reply, None)
            raise
        return future

    def _ask(self, agent: str, text: str, timeout: Optional[float], key: Optional[str]) -> Future[_Line]:
        request = self._next_id(key)
        return self._request(
            "route_request", ("route_response", request),
            requestId=request, toId=agent, message=text, timeoutMs=_millis(timeout),
        )

    def _question(
        self, text: str, options: Optional[Iterable[str]], timeout: Optional[float], default: Optional[str],
        key: Optional[str],
    ) -> Future[_Line]:
        request = self._next_id(key)
        return self._request(
            "question", ("answer", request), requestId=request, text=text,
            options=None if options is None else list(options), timeoutMs=_millis(timeout), default=default,
        )

    def _history(self, limit: int, before: Optional[str], conversation: Optional[str]) -> Future[_Line]:
        conversation = self.conversation_id if conversation is None else conversation
        if conversation is None:
            raise ValueError("a question from another agent is in no conversation: name one")
        request = f"{self.message_id}.h{self._worker._next()}"
        return self._request(
            "history_request", ("history_response", request), requestId=request, conversationId=conversation,
            before=before, limit=limit,
        )

    def _store(self, key: str, result: Any) -> Future[_Line]:
        return self._request("step", ("step_stored", f"{self.message_id} {_name(key)}"), key=key, result=result)

    def _stored(self, key: str, result: Any, stored: _Line) -> Any:
        # The first one counts: a turn may run twice for a moment when its process is replaced.
        self.steps[key] = stored.get("result", result)
        return self.steps[key]

    def _finish(self, returned: Optional[str]) -> None:
        if returned is not None and not isinstance(returned, str):
            raise TypeError(f"a response is a text, not {type(returned).__name__}")
        if self.kind == "route":
            response = "".join(self._said) if returned is None else returned
            self._end("route_done", requestId=self.message_id, response=response)
        else:
            self._end("chat_done", response=returned)

    def _give_up(self, error: BaseException) -> None:
        after = error.after if isinstance(error, Retry) else None
        # After a deadline a cancelled turn may be retried; after a cancellation this is ignored.
        retryable = isinstance(error, (Retry, Cancelled, asyncio.CancelledError))
        reason = str(error) or ("cancelled" if retryable else repr(error))
        self._end("error", error=reason, retryable=retryable, retryAfterMs=_millis(after))

    def _end(self, kind: str, **fields: Any) -> None:
        if self._ended:
            return
        self._ended = True
        self._worker._end(self)
        self._worker._send(kind, messageId=self.message_id, **fields)


class Turn(_Turn):
    """A message that a plain function answers. Once it is cancelled, whatever it calls here raises `Cancelled`."""

    def __init__(self, worker: "Worker", line: _Line) -> None:
        super().__init__(worker, line)
        self._cancelled = threading.Event()
        self._keys: Dict[str, threading.Lock] = {}

    @property
    def cancelled(self) -> bool:
        """Whether the turn was cancelled, or its deadline has passed: it should end soon."""
        return self._cancelled.is_set()

    def sleep(self, seconds: float) -> None:
        """Waits. Raises `Cancelled` as soon as the turn is cancelled."""
        if self._cancelled.wait(seconds):
            raise Cancelled("cancelled")

    def ask(self, agent: str, text: str, *, timeout: Optional[float] = None, key: Optional[str] = None) -> str:
        """Asks another agent, and waits for its answer. Raises `Failed` if there is none.

        The nth request of a turn without a `key` is the same in every attempt, as is the one with a `key`: what was answered is not
        asked again.
        """
        return cast(str, self._wait(self._ask(agent, text, timeout, key))["response"])

    def history(
        self, limit: int = 20, *, before: Optional[str] = None, conversation: Optional[str] = None
    ) -> History:
        """The finished messages of this conversation, or of another one with this agent: the last ones, or those before a page."""
        return _history(self._wait(self._history(limit, before, conversation)))

    def step(self, key: str, run: Callable[[], _T]) -> _T:
        """Runs something once, stores its result, which must be JSON, and returns it: in a later attempt, what was stored.

        It runs again if the worker dies before the result is stored; `step_id` makes that harmless where the effect takes such an id.
        """
        with self._keys.setdefault(key, threading.Lock()):
            if key in self.steps:
                return cast(_T, self.steps[key])
            if self.cancelled:
                raise Cancelled("cancelled")
            result = _json(run())
            return cast(_T, self._stored(key, result, self._wait(self._store(key, result))))

    def question(
        self, text: str, *, options: Optional[Iterable[str]] = None, timeout: Optional[float] = None,
        default: Optional[str] = None, key: Optional[str] = None,
    ) -> Answered:
        """Asks a person, and waits for the answer. If nobody answers in time, it is the default, or `Failed` is raised.

        `mozart questions` shows what is asked, `mozart answer` answers. About `key`, see `ask`.
        """
        return _answered(self._wait(self._question(text, options, timeout, default, key)))

    def _send(self, kind: str, **fields: Any) -> None:
        if self._cancelled.is_set():
            raise Cancelled("cancelled")
        super()._send(kind, **fields)

    def _wait(self, future: Future[_Line]) -> _Line:
        # It may have been cancelled while the request was sent.
        if self.cancelled:
            future.cancel()
        try:
            return _checked(future.result())
        except CancelledError:
            raise Cancelled("cancelled") from None

    def _cancel(self) -> None:
        self._cancelled.set()
        for future in list(self._waiting):
            future.cancel()


class AsyncTurn(_Turn):
    """A message that a coroutine answers. Once it is cancelled, the coroutine is."""

    def __init__(self, worker: "Worker", line: _Line) -> None:
        super().__init__(worker, line)
        self._keys: Dict[str, asyncio.Lock] = {}

    async def ask(self, agent: str, text: str, *, timeout: Optional[float] = None, key: Optional[str] = None) -> str:
        """As `Turn.ask`."""
        return cast(str, (await self._wait(self._ask(agent, text, timeout, key)))["response"])

    async def history(
        self, limit: int = 20, *, before: Optional[str] = None, conversation: Optional[str] = None
    ) -> History:
        """As `Turn.history`."""
        return _history(await self._wait(self._history(limit, before, conversation)))

    @overload
    async def step(self, key: str, run: Callable[[], Awaitable[_T]]) -> _T: ...

    @overload
    async def step(self, key: str, run: Callable[[], _T]) -> _T: ...

    async def step(self, key: str, run: Callable[[], Any]) -> Any:
        """As `Turn.step`, of a function or a coroutine function."""
        async with self._keys.setdefault(key, asyncio.Lock()):
            if key in self.steps:
                return self.steps[key]
            result = run()
            if inspect.isawaitable(result):
                result = await result
            result = _json(result)
            return self._stored(key, result, await self._wait(self._store(key, result)))

    async def question(
        self, text: str, *, options: Optional[Iterable[str]] = None, timeout: Optional[float] = None,
        default: Optional[str] = None, key: Optional[str] = None,
    ) -> Answered:
        """As `Turn.question`."""
        return _answered(await self._wait(self._question(text, options, timeout, default, key)))

    async def _wait(self, future: Future[_Line]) -> _Line:
        return _checked(await asyncio.wrap_future(future))


class Worker:
    """Reads messages, and answers each with `answer(turn)`: a function of a `Turn`, or a coroutine function of an `AsyncTurn`."""

    def __init__(
        self, answer: Union[Callable[[Turn], Optional[str]], Callable[[AsyncTurn], Awaitable[Optional[str]]]]
    ) -> None:
        self._answer: Callable[[Any], Any] = answer
        self._output = threading.Lock()
        self._to_shim = -1
        self._waiting: Dict[_Reply, Tuple[_Turn, Future[_Line]]] = {}
        self._numbers = 0
        self._turns: Dict[str, Tuple[_Turn, Callable[[], Any]]] = {}
        self.agent: _Line = {}
        """The soul: `name`, `model`, `identity`, `ifThen`, `schedule`, `skills`, `sanctums`. There once the first turn is."""
        self.incarnation = 0
        """Which start of the agent this is."""

    def run(self) -> None:
        """Reports ready, then answers until the shim says `shutdown`, when the open turns may end, or stdin ends."""
        lines = self._take_over()
        # Also of an object with `async def __call__`.
        call = getattr(self._answer, "__call__", None)
        if inspect.iscoroutinefunction(self._answer) or inspect.iscoroutinefunction(call):
            asyncio.run(self._run_tasks(lines))
        else:
            self._run_threads(lines)

    def _take_over(self) -> BinaryIO:
        """Keeps stdin and stdout for the protocol: no library, `print` or child process reads or writes in between."""
        lines = os.fdopen(os.dup(0), "rb")
        self._to_shim = os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        sys.stdout.flush()
        os.dup2(2, 1)
        reconfigure = getattr(sys.stdout, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
        return lines

    # Plain functions: a thread for each turn.

    def _run_threads(self, lines: BinaryIO) -> None:
        threads: set[threading.Thread] = set()

        def begin(line: _Line) -> None:
            turn = Turn(self, line)

            def work() -> None:
                try:
                    self._work(turn)
                finally:
                    threads.discard(threading.current_thread())

            thread = threading.Thread(target=work, name=turn.message_id, daemon=True)
            threads.add(thread)
            self._turns[turn.message_id] = (turn, turn._cancel)
            thread.start()

        self._send("ready")
        for raw in lines:
            if self._take(json.loads(raw), begin):
                for thread in list(threads):
                    thread.join()
                return
        # Nobody reads what the others say: a moment to notice that.
        for turn, cancel in list(self._turns.values()):
            cancel()
        end = time.monotonic() + 1
        for thread in list(threads):
            thread.join(max(0.0, end - time.monotonic()))

    def _work(self, turn: Turn) -> None:
        self._send("ack", messageId=turn.message_id)
        try:
            returned = self._answer(turn)
            if turn.cancelled:
                raise Cancelled("cancelled")
            turn._finish(returned)
        except Cancelled as error:
            turn._give_up(error)
        except BaseException as error:  # whatever went wrong, `sys.exit` too: the sender is told
            if not isinstance(error, Retry):
                traceback.print_exc()
            turn._give_up(error)

    # Coroutines: a task for each turn, and a thread that reads.

    async def _run_tasks(self, lines: BinaryIO) -> None:
        loop = asyncio.get_running_loop()
        # Whether the open turns may end.
        ended: asyncio.Future[bool] = loop.create_future()
        tasks: set[asyncio.Task[Union[Optional[str], _Exit]]] = set()

        async def work(turn: AsyncTurn) -> Union[Optional[str], "_Exit"]:
            try:
                return cast(Optional[str], await self._answer(turn))
            except (SystemExit, KeyboardInterrupt) as error:
                # They would end the loop, and with it the turns of others.
                return _Exit(error)

        def begin(line: _Line) -> None:
            turn = AsyncTurn(self, line)
            self._send("ack", messageId=turn.message_id)
            task = loop.create_task(work(turn))
            tasks.add(task)
            self._turns[turn.message_id] = (turn, task.cancel)
            # Not within the task: one that is cancelled before it begins does nothing at all.
            task.add_done_callback(lambda task: end(turn, task))

        def end(turn: AsyncTurn, task: asyncio.Task[Optional[str]]) -> None:
            tasks.discard(task)
            try:
                returned = task.result()
                if isinstance(returned, _Exit):
                    turn._give_up(returned.error)
                else:
                    turn._finish(returned)
            except asyncio.CancelledError as error:
                turn._give_up(error)
            except Exception as error:  # whatever went wrong, the sender is told
                if not isinstance(error, Retry):
                    traceback.print_exception(type(error), error, error.__traceback__)
                turn._give_up(error)

        def take(line: _Line) -> None:
            if self._take(line, begin):
                leave(True)

        def leave(orderly: bool, error: Optional[Exception] = None) -> None:
            if not ended.done() and error is not None:
                ended.set_exception(error)
            elif not ended.done():
                ended.set_result(orderly)

        def read() -> None:
            try:
                for raw in lines:
                    line = json.loads(raw)
                    loop.call_soon_threadsafe(take, line)
                    # Nothing comes after that: a thread that still read would be in the way of the interpreter's end.
                    if line["type"] == "shutdown":
                        return
                loop.call_soon_threadsafe(leave, False)
                # Nobody waits for threads of an executor, and for tasks that refuse to be cancelled.
                time.sleep(5)
                os._exit(0)
            except Exception as error:
                loop.call_soon_threadsafe(leave, False, error)

        self._send("ready")
        threading.Thread(target=read, name="stdin", daemon=True).start()
        if await ended and tasks:
            await asyncio.wait(tasks)
        # Where stdin just ends, nobody reads what the others say: they are cancelled with the loop.

    # Lines.

    def _take(self, line: _Line, begin: Callable[[_Line], None]) -> bool:
        """Takes a line from the shim. Whether it is the last one."""
        kind = line["type"]
        if kind == "init":
            self.agent, self.incarnation = line["agent"], line["incarnation"]
        elif kind in ("chat", "route"):
            begin(line)
        elif kind == "cancel" and line["messageId"] in self._turns:
            self._turns[line["messageId"]][1]()
        elif kind == "step_stored":
            self._reply(self._meant((kind, f"{line.get('messageId')} {line.get('key')}"), line), line)
        elif kind in ("route_response", "history_response", "answer"):
            self._reply(self._meant((kind, line.get("requestId", "")), line), line)
        return bool(kind == "shutdown")

    def _meant(self, reply: _Reply, line: _Line) -> _Reply:
        """What is replied to. The value of a SECRET in its name is masked: then it is the only one of this kind that its turn waits for."""
        message = line.get("messageId")
        if message is None or reply in self._waiting:
            return reply
        waiting = list(self._waiting.items())
        of = [one for one, (turn, _) in waiting if one[0] == reply[0] and turn.message_id == message]
        return of[0] if len(of) == 1 else reply

    def _reply(self, reply: _Reply, line: _Line) -> None:
        turn, future = self._waiting.pop(reply, (None, None))
        if turn is not None and future is not None:
            turn._waiting.discard(future)
            # False if who waited for it has given up.
            if future.set_running_or_notify_cancel():
                future.set_result(line)

    def _end(self, turn: _Turn) -> None:
        self._turns.pop(turn.message_id, None)
        for reply in [reply for reply, (of, _) in list(self._waiting.items()) if of is turn]:
            _, future = self._waiting.pop(reply, (None, None))
            if future is not None:
                future.cancel()

    def _next(self) -> int:
        with self._output:
            self._numbers += 1
            return self._numbers

    def _send(self, kind: str, **fields: Any) -> None:
        """Writes a line; fields without a value are left out. Lines of several threads do not mix."""
        line: _Line = {"type": kind}
        # A result may be nothing.
        line.update((name, value) for name, value in fields.items() if value is not None or name == "result")
        data = memoryview(json.dumps(line).encode() + b"\n")
        with self._output:
            try:
                while data:
                    data = data[os.write(self._to_shim, data) :]
            except BrokenPipeError:
                # The shim no longer reads.
                os._exit(0)


class _Exit:
    """How a coroutine has tried to end the process."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _name(name: str) -> str:
    """What a request or a step is called, if it can be."""
    if not name or len(name.encode()) > _LONGEST:
        raise ValueError(f"a name has 1 to {_LONGEST} bytes: {name[:80]!r}")
    return name


def _json(value: Any) -> Any:
    """As the next attempt would get it: a tuple is a list."""
    return json.loads(json.dumps(value, allow_nan=False))


def _millis(seconds: Optional[float]) -> Optional[int]:
    return None if seconds is None else max(0, int(seconds * 1000))


def _checked(line: _Line) -> _Line:
    if line.get("error"):
        raise (Unavailable if line.get("retryable") else Failed)(line["error"])
    return line


def _answered(line: _Line) -> Answered:
    answered = Answered(line["text"])
    answered.is_default = bool(line.get("isDefault"))
    return answered


def _history(line: _Line) -> History:
    turns = [
        Past(
            message_id=turn["messageId"], sender=turn["fromId"], kind=turn["kind"], message=turn["message"],
            response=turn.get("response"), status=turn["status"], reason=turn.get("reason"), at=turn["at"],
        )
        for turn in line["turns"]
    ]
    return History(turns, line.get("next"))
