"""Single-flight: equal work that is under way is done once, for everybody who waits for it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    waiters: int = 0


class Flights(Generic[T]):
    """Work under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: bytes) -> bool:
        return key in self._flights

    async def join(self, key: bytes, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the work under `key`, and start it if nobody has.

        Cancelling a waiter cancels the work only if nobody else waits for it. An error of the work reaches every
        waiter as a copy of its own, so that each can write into it where the item stood in its request.

        Args:
            key: equal keys mean equal work.
            start: makes the work.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(start()))
            flight.task.add_done_callback(partial(self._land, key, flight))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except Exception as error:
            raise copy.copy(error) from error
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                self._land(key, flight)  # at once: who comes now must not join work that is being cancelled
                flight.task.cancel()

    def _land(self, key: bytes, flight: _Flight[T], *_: object) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.task.done() and not flight.task.cancelled():
            flight.task.exception()  # seen, even if every waiter has left meanwhile
