from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from mllm_embed.backends.loop_thread import LoopThread

pytestmark = pytest.mark.fast


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread("test")
    yield thread
    thread.stop()


async def _where() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


async def test_coroutines_run_on_its_own_thread(loop: LoopThread) -> None:
    assert await loop.arun(_where()) == "test"
    assert await asyncio.to_thread(loop.run, _where()) == "test"


async def test_errors_reach_the_caller(loop: LoopThread) -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        await loop.arun(fail())


async def test_cancelling_the_caller_cancels_the_coroutine(loop: LoopThread) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    task = asyncio.create_task(loop.arun(wait()))
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(cancelled.wait, 10)


def test_stopping_twice_is_harmless(loop: LoopThread) -> None:
    assert loop.alive
    loop.stop()
    loop.stop()
    assert not loop.alive
