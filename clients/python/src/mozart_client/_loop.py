"""An event loop on a thread of its own: what blocks is made of what does not."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from typing import Any, AsyncIterator, Coroutine, Iterator, Optional, TypeVar

T = TypeVar("T")

_END = 2.0
"""How long what is under way may take to end with the process, in seconds."""


class _Thread:
    """The thread, which all clients of a process share."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.has_ended = False
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mozart-client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def end(self) -> None:
        """What is under way is cancelled, so that connections are closed."""
        if self.process != os.getpid():
            return
        try:
            asyncio.run_coroutine_threadsafe(_cancel_all(), self.loop).result(_END)
        except Exception:  # noqa: BLE001 - the process ends, whatever it is
            pass
        self.has_ended = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_END)


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# Reentrant: garbage may be collected while it is held, and what is dropped ends here as well.
_lock = threading.RLock()
_shared: Optional[_Thread] = None


def _thread() -> _Thread:
    global _shared, _lock
    if _shared is not None and _shared.process != os.getpid():
        # A fork has the memory of the thread, but not the thread; and perhaps a lock that nobody will release.
        _lock, _shared = threading.RLock(), None
    with _lock:
        if _shared is None:
            _shared = _Thread()
            atexit.register(_shared.end)
        return _shared


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs to its end what does not block."""
    thread = _thread()
    if thread.has_ended or _is_on(thread):
        work.close()
        why = "the process ends" if thread.has_ended else "it would wait for itself: use AsyncClient in coroutines"
        raise RuntimeError(f"this cannot be done here: {why}")
    running = asyncio.run_coroutine_threadsafe(work, thread.loop)
    try:
        return running.result()
    except BaseException:
        # Whoever is interrupted does not wait any more.
        running.cancel()
        raise


def _is_on(thread: _Thread) -> bool:
    try:
        return asyncio.get_running_loop() is thread.loop
    except RuntimeError:
        return False


def each(items: AsyncIterator[T]) -> Iterator[T]:
    """The items as they come."""

    async def next_() -> "tuple[bool, Any]":
        try:
            return True, await items.__anext__()
        except StopAsyncIteration:
            return False, None

    try:
        while True:
            is_one, item = run(next_())
            if not is_one:
                return
            yield item
    finally:
        thread = _thread()
        if not thread.has_ended:
            # Not waited for: this may be the garbage collection, on any thread.
            asyncio.run_coroutine_threadsafe(_close(items), thread.loop)


async def _close(items: AsyncIterator[T]) -> None:
    end = getattr(items, "aclose", None)
    for _try in range(100):
        try:
            if end is not None:
                await end()
            return
        except RuntimeError:
            # What was cancelled just now has not ended yet.
            await asyncio.sleep(0.02)
