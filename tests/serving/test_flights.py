from __future__ import annotations

import asyncio

import pytest

from mllm_embed.errors import InvalidInput
from mllm_embed_serving.pipeline.flights import Flights

pytestmark = pytest.mark.fast


class Work:
    """Work that ends when it is told to, and remembers what was done to it."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.finish = asyncio.Event()

    async def run(self) -> int:
        self.started += 1
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.started


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_equal_work_is_done_once_and_other_work_beside_it() -> None:
    flights, work, other = Flights[int](), Work(), Work()
    waiting = [asyncio.create_task(flights.join(b"a", work.run)) for _ in range(3)]
    beside = asyncio.create_task(flights.join(b"b", other.run))
    await settle()
    assert (work.started, other.started, len(flights)) == (1, 1, 2)
    work.finish.set()
    other.finish.set()
    assert await asyncio.gather(*waiting, beside) == [1, 1, 1, 1]
    assert len(flights) == 0
    assert await flights.join(b"a", work.run) == 2, "what has landed is done anew"


async def test_one_who_leaves_takes_nothing_from_those_who_stay() -> None:
    flights, work = Flights[int](), Work()
    leaves, stays = (asyncio.create_task(flights.join(b"a", work.run)) for _ in range(2))
    await settle()
    leaves.cancel()
    await settle()
    assert work.cancelled == 0
    work.finish.set()
    assert await stays == 1


async def test_the_last_one_who_leaves_ends_the_work_and_nobody_joins_what_is_ending() -> None:
    flights, work, fresh = Flights[int](), Work(), Work()
    leaves = asyncio.create_task(flights.join(b"a", work.run))
    await settle()
    leaves.cancel()
    await asyncio.sleep(0)
    joins = asyncio.create_task(flights.join(b"a", fresh.run))
    await settle()
    assert (work.cancelled, fresh.started) == (1, 1)
    fresh.finish.set()
    assert await joins == 1


async def test_everybody_gets_an_error_of_their_own() -> None:
    flights = Flights[int]()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise InvalidInput("bad")

    results = await asyncio.gather(*(flights.join(b"a", fail) for _ in range(2)), return_exceptions=True)
    first, second = results
    assert isinstance(first, InvalidInput)
    assert isinstance(second, InvalidInput)
    assert first.at(0).index == 0
    assert second.index is None
