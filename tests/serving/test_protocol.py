"""Connections that do not say what they want."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn

from mllm_embed.embedder import Embedder
from mllm_embed_serving import protocol
from mllm_embed_serving.app import create_app

pytestmark = pytest.mark.fast

WHOLE = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
async def port(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    config = uvicorn.Config(
        create_app(embedder), http=protocol.PromptProtocol, port=0, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn sets no event
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


@pytest.mark.parametrize("sent", [b"", WHOLE[:-2], b"POST /v1/embeddings HTTP/1.1\r\nx-slow: "])
async def test_an_unfinished_head_is_cut_off(port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()


async def test_so_is_one_on_a_connection_that_was_good_before(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(WHOLE)
    assert b"200 OK" in await reader.readline()
    writer.write(WHOLE[:-2])
    async with asyncio.timeout(30):
        rest = await reader.read()
    assert b"HTTP/1.1" not in rest
    writer.close()
