from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from mllm_embed_serving.disconnects import unless_disconnected
from mllm_embed_serving.errors import ClientGone

pytestmark = pytest.mark.fast


def request_that(gone: asyncio.Event) -> Request:
    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": []}, receive)


async def test_work_goes_through_while_the_caller_waits() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 3

    assert await unless_disconnected(request_that(asyncio.Event()), work()) == 3


async def test_an_error_goes_through() -> None:
    async def work() -> Any:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        await unless_disconnected(request_that(asyncio.Event()), work())


async def test_work_is_cancelled_when_the_caller_hangs_up() -> None:
    gone, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        gone.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ClientGone):
        await unless_disconnected(request_that(gone), work())
    await asyncio.wait_for(cancelled.wait(), 5)
