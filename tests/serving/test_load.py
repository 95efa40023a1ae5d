"""More than the server can do at once: who is refused, how, and what those who are not get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest

from mllm_embed.embedder import Embedder
from mllm_embed.types import Embedding, RenderedPrompt
from mllm_embed_serving.access.keys import KeyLimits, given_keys
from mllm_embed_serving.app import create_app
from mllm_embed_serving.settings import ServerSettings
from tests.error_shape import check_error

pytestmark = pytest.mark.fast

Post = Callable[..., Any]
Until = Callable[[Callable[[], object]], Awaitable[None]]


class Engine:
    """The engine, which holds its prompts back until it is told to go on."""

    def __init__(self, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts = 0
        self.go = asyncio.Event()
        self._embed = embedder.backend.embed
        monkeypatch.setattr(embedder.backend, "embed", self._hold)

    async def _hold(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        self.prompts += len(prompts)
        await self.go.wait()
        return await self._embed(prompts)


@pytest.fixture
def engine(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(embedder, monkeypatch)


def refused(answer: httpx.Response, code: str, says: str, status: int = 429) -> None:
    check_error(answer.json(), answer.status_code, expected=status, code=code, says=says)


class TestQueue:
    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(max_queued_items=3, max_queued_requests=3)

    async def test_items_beyond_it_are_refused_with_a_time_to_retry_and_the_others_answered(
        self, embed: Post, engine: Engine, until: Until, client: httpx.AsyncClient
    ) -> None:
        waiting = asyncio.create_task(embed(input=["a", "b"]))
        await until(lambda: engine.prompts == 2)
        assert "mllm_embed_queued_items 2.0" in (await client.get("/metrics")).text
        async with asyncio.timeout(30):
            answer = await embed(input=["c", "d"])
        refused(answer, "queue_full", "at most 3")
        assert answer.headers["retry-after"] == "1"
        engine.go.set()
        assert (await waiting).status_code == 200
        assert (await embed(input=["c", "d"])).status_code == 200

    async def test_an_idle_server_takes_a_request_of_any_size(self, embed: Post) -> None:
        assert (await embed(input=["a"] * 9)).status_code == 200

    async def test_requests_beyond_it_are_refused_before_their_bodies_are_read(
        self, embed: Post, client: httpx.AsyncClient, until: Until
    ) -> None:
        more, sent = asyncio.Event(), 0

        async def slow() -> AsyncIterator[bytes]:
            nonlocal sent
            sent += 1
            yield b"{"
            await more.wait()
            yield b'"model": "fake", "input": "a"}'

        waiting = [asyncio.create_task(client.post("/v1/embeddings", content=slow())) for _ in range(3)]
        await until(lambda: sent == 3)
        refused(await embed(input="a"), "queue_full", "3 requests are under way")
        assert (await client.get("/health")).status_code == 200
        more.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}


class TestDeadlines:
    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(request_timeout_s=0.05, body_timeout_s=0.05)

    async def test_an_engine_that_takes_too_long(self, embed: Post, engine: Engine, embedder: Embedder) -> None:
        answer = await embed(input="a")
        refused(answer, "deadline_exceeded", "longer than this server lets one take", status=504)
        engine.go.set()
        assert (await embed(input="a")).status_code == 200

    async def test_a_body_that_never_ends(self, client: httpx.AsyncClient) -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        answer = await client.post("/v1/embeddings", content=endless())
        refused(answer, "request_timeout", "within 0.05 s", status=408)
        assert answer.headers["connection"] == "close"


class TestKeys:
    @pytest.fixture
    def settings(self) -> ServerSettings:
        keys = given_keys(["small"], KeyLimits(requests_per_minute=2, tokens_per_minute=10_000))
        return ServerSettings(api_keys=keys + given_keys(["large"], KeyLimits()))

    async def test_each_key_has_its_own_rate(self, embed: Post, client: httpx.AsyncClient) -> None:
        client.headers["authorization"] = "Bearer small"
        first = await embed(input="a")
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        spent = first.json()["usage"]["total_tokens"]
        assert first.headers["x-ratelimit-remaining-tokens"] == str(10_000 - spent)
        await embed(input="b")
        answer = await embed(input="c")
        refused(answer, "rate_limit_exceeded", "2 requests per minute")
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert (await client.get("/metrics")).status_code == 200, "only the API counts"
        client.headers["authorization"] = "Bearer large"
        for _ in range(3):
            assert "x-ratelimit-limit-requests" not in (await embed(input="a")).headers


async def test_anonymous_callers_share_one_rate(embedder: Embedder) -> None:
    settings = ServerSettings(limits=KeyLimits(requests_per_minute=1))
    transport = httpx.ASGITransport(create_app(embedder, settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 429


async def test_while_it_drains_what_is_under_way_is_answered_and_the_rest_is_sent_elsewhere(
    embedder: Embedder, engine: Engine, until: Until
) -> None:
    app = create_app(embedder)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        body = {"model": "fake", "input": "a"}
        waiting = asyncio.create_task(client.post("/v1/embeddings", json=body))
        await until(lambda: engine.prompts == 1)
        draining = asyncio.create_task(app.state.service.admission.drain())
        await asyncio.sleep(0)
        for answer in (await client.post("/v1/embeddings", json=body), await client.get("/health")):
            refused(answer, "server_stopping", "send the request again", status=503)
            assert answer.headers["retry-after"] == "1"
        assert not draining.done()
        engine.go.set()
        assert (await waiting).status_code == 200
        await draining
