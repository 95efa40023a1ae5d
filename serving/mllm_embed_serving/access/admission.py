"""The queue: how much may be under way at once, for how long, and nothing new once the server is about to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from prometheus_client import Gauge

from mllm_embed_serving.errors import DeadlineExceeded, Draining, QueueFull


class Admission:
    """Lets requests in while there is room for them.

    Args:
        max_requests: requests whose bodies may be in memory at once.
        max_items: items that may wait for the engine, or be in it; an idle server takes any request.
        deadline_s: seconds in which a request must be embedded.
        gauge: follows the number of items.
    """

    def __init__(self, *, max_requests: int, max_items: int, deadline_s: float, gauge: Gauge) -> None:
        self._max_requests = max_requests
        self._max_items = max_items
        self._deadline_s = deadline_s
        self._gauge = gauge
        self._requests = 0
        self._items = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop."""
        return self._draining

    def check(self) -> None:
        """Raise `Draining` if nothing new is taken."""
        if self._draining:
            raise Draining("the server is about to stop")

    async def drain(self) -> None:
        """Take nothing new from now on, and return once all that was taken has been embedded."""
        self._draining = True
        await self._idle.wait()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Hold room for a request's body.

        Raises:
            Draining: nothing new is taken.
            QueueFull: there are as many requests under way as there may be.
        """
        self.check()
        if self._requests >= self._max_requests:
            raise QueueFull(f"{self._requests} requests are under way, and no more may be", retry_after_s=1)
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @contextlib.asynccontextmanager
    async def items(self, count: int) -> AsyncIterator[None]:
        """Hold room for the items of a request while they are embedded.

        Raises:
            Draining: nothing new is taken.
            QueueFull: the items that are under way leave no room for so many.
            DeadlineExceeded: embedding them takes too long.
        """
        self.check()
        if self._items and self._items + count > self._max_items:
            raise QueueFull(
                f"{self._items} items are under way, and at most {self._max_items} may be: there is no room "
                f"for {count} more now",
                retry_after_s=1,
            )
        self._add(count)
        deadline = asyncio.timeout(self._deadline_s)
        try:
            async with deadline:
                yield
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise DeadlineExceeded(f"not embedded after {self._deadline_s:g} s") from error
        finally:
            self._add(-count)

    def _add(self, count: int) -> None:
        self._items += count
        self._gauge.set(self._items)
        if self._items:
            self._idle.clear()
        else:
            self._idle.set()
