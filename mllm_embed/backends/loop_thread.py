"""An event loop in a thread of its own, so that callers from any loop, or from none, can use what lives on it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Mailbox:
    """Calls for an event loop from other threads, carried out together.

    Waking a loop costs a system call, and makes two threads fight for the interpreter's lock, each time for up to five
    milliseconds. So a loop is woken once for all calls that it has not seen yet.

    Args:
        loop: carries out the calls, in order.

    Attributes:
        loop: the same.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._woken = False

    def post(self, call: Callable[[], object]) -> None:
        """Have the loop make a call soon."""
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            self.loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._woken = False  # first: a call that is posted from now on wakes the loop again
        while self._calls:
            self._calls.popleft()()


class LoopThread:
    """Runs coroutines on its own event loop until it is stopped.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._workers = ThreadPoolExecutor(thread_name_prefix=name)
        self._loop.set_default_executor(self._workers)
        self._inbox = _Mailbox(self._loop)
        self._caller: _Mailbox | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._workers.shutdown()  # the loop's own way needs a new thread, which an interpreter that ends refuses
        self._loop.close()

    @property
    def alive(self) -> bool:
        """Whether it can still run coroutines."""
        return self._thread.is_alive()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait; not to be called from an event loop that others need."""
        return self.submit(coroutine).result()

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and await it from another loop; cancelling the caller cancels it."""
        if self._caller is None or self._caller.loop is not asyncio.get_running_loop():
            self._caller = _Mailbox(asyncio.get_running_loop())
        call = _Call(coroutine, self._caller)
        self._inbox.post(call.start)
        try:
            return await call.answer
        except asyncio.CancelledError:
            self._inbox.post(call.cancel)
            raise

    def stop(self) -> None:
        """Stop the loop and end the thread; calling it twice is harmless."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


class _Call(Generic[T]):
    """A coroutine of one loop that runs on another one.

    Args:
        coroutine: what is run.
        caller: the mailbox of the loop that waits for it.

    Attributes:
        answer: what becomes of it, for the caller.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], caller: _Mailbox) -> None:
        self.answer: asyncio.Future[T] = caller.loop.create_future()
        self._coroutine = coroutine
        self._caller = caller
        self._task: asyncio.Task[T] | None = None

    def start(self) -> None:
        """Start, on the loop that runs it."""
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(self._report)

    def cancel(self) -> None:
        """Stop, on the loop that runs it."""
        if self._task is not None:
            self._task.cancel()

    def _report(self, task: asyncio.Task[T]) -> None:
        if not self._caller.loop.is_closed():
            self._caller.post(partial(self._settle, task))

    def _settle(self, task: asyncio.Task[T]) -> None:
        """Hand over the outcome, on the caller's loop, unless the caller has left."""
        if task.cancelled():
            self.answer.cancel()
        elif (error := task.exception()) is not None:
            if not self.answer.done():
                self.answer.set_exception(error)
        elif not self.answer.done():
            self.answer.set_result(task.result())
