"""Results that are known: the same bits, within the budget, for the same caller and the same model only."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.embedder import Embedder
from mllm_embed.types import Embedding
from mllm_embed_serving.access.keys import KeyLimits, given_keys
from mllm_embed_serving.app import create_app
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.metrics import Metrics
from mllm_embed_serving.pipeline.cache import ResultCache
from mllm_embed_serving.pipeline.disk_store import FILE, DiskStore
from mllm_embed_serving.settings import ServerSettings

pytestmark = pytest.mark.fast

ONE = Embedding(np.arange(64, dtype=np.float32), 7, 480)


class Asked:
    """Serves one embedder under some settings, and counts the prompts that reach its engine."""

    def __init__(self, embedder: Embedder, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts = 0
        self._embed = embedder.backend.embed
        monkeypatch.setattr(embedder.backend, "embed", self._count)
        transport = httpx.ASGITransport(create_app(embedder, settings))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def _count(self, prompts: Any) -> Any:
        self.prompts += len(prompts)
        return await self._embed(prompts)

    async def __call__(self, key: str = "a", **body: Any) -> Any:
        headers = {"authorization": f"Bearer {key}"}
        answer = await self.client.post("/v1/embeddings", json={"model": "fake", **body}, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Asked]]:
    opened = []

    def start(**settings: Any) -> Asked:
        opened.append(fake_embedder(dimensions=64, policy=ServerSettings().media_policy()))
        return Asked(opened[-1], ServerSettings(**settings), monkeypatch)

    yield start
    for embedder in opened:
        embedder.close()


async def test_a_repeated_item_is_answered_bit_for_bit_without_the_engine(
    serve: Callable[..., Asked], uri: Callable[..., str]
) -> None:
    ask = serve()
    items = ["cat", {"image": uri(1)}, {"image": uri(1), "text": "cat"}]
    first = await ask(input=items)
    assert ask.prompts == 3
    assert await ask(input=items) == first
    assert await ask(input=[items[1]]) == {
        **first,
        "data": [{**first["data"][1], "index": 0}],
        "usage": (await ask(input=[items[1]]))["usage"],
    }
    assert ask.prompts == 3
    metrics = (await ask.client.get("/metrics")).text
    assert 'mllm_embed_cache_hits_total{where="memory"} 5.0' in metrics
    assert "mllm_embed_cache_misses_total 3.0" in metrics


async def test_it_can_be_turned_off(serve: Callable[..., Asked]) -> None:
    ask = serve(cache_bytes=None)
    assert await ask(input="cat") == await ask(input="cat")
    assert ask.prompts == 2


async def test_another_key_finds_nothing(serve: Callable[..., Asked]) -> None:
    ask = serve(api_keys=given_keys(["a", "b"], KeyLimits()))
    await ask("a", input="cat")
    await ask("b", input="cat")
    assert ask.prompts == 2


async def test_a_failure_is_not_kept(serve: Callable[..., Asked]) -> None:
    ask = serve()
    for _ in range(2):
        data = (await ask(input=[""], partial=True))["data"]
        assert data[0]["error"]["code"] == "invalid_input"


async def test_the_least_recently_used_makes_room() -> None:
    cache = ResultCache("", 3 * (256 + 400), None, Metrics())
    for key in (b"a", b"b", b"c"):
        await cache.put(key, ONE)
    assert await cache.get(b"a") is not None
    await cache.put(b"d", ONE)
    assert [key for key in (b"a", b"b", b"c", b"d") if await cache.get(key) is not None] == [b"a", b"c", b"d"]


async def test_a_result_cannot_be_written_into() -> None:
    cache = ResultCache("", 10_000, None, Metrics())
    await cache.put(b"a", Embedding(np.zeros(3, dtype=np.float32), 1))
    found = await cache.get(b"a")
    assert found is not None
    with pytest.raises(ValueError, match="read-only"):
        found.vector[0] = 1


async def test_the_disk_outlives_the_server(serve: Callable[..., Asked], tmp_path: Path) -> None:
    first = await serve(cache_folder=tmp_path)(input=["cat", "dog"])
    again = serve(cache_folder=tmp_path)
    assert await again(input=["cat", "dog"]) == first
    assert again.prompts == 0
    assert 'cache_hits_total{where="disk"} 2.0' in (await again.client.get("/metrics")).text
    assert (tmp_path / FILE).stat().st_size > 0


async def test_what_another_model_or_precision_made_is_not_found_on_the_disk(
    serve: Callable[..., Asked], tmp_path: Path
) -> None:
    await serve(cache_folder=tmp_path, precision="float32")(input="cat")
    other = serve(cache_folder=tmp_path, precision="bfloat16")
    await other(input="cat")
    assert other.prompts == 1
    one, two = (ResultCache(name, 0, DiskStore(tmp_path, 10_000), Metrics()) for name in ("model a", "model b"))
    await one.put(b"a", ONE)
    assert await two.get(b"a") is None
    found = await one.get(b"a")
    assert found is not None
    np.testing.assert_array_equal(found.vector, ONE.vector)
    assert (found.tokens, found.pixels) == (7, 480)


def test_the_disk_keeps_its_budget_and_what_was_used_last(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 1000)
    for number in range(10):
        store.put(bytes([number]), b"x" * 100)
    assert store.get(b"\0") is not None
    store.put(b"new", b"y" * 100)
    assert store.get(b"\0") is not None
    assert store.get(b"\1") is None
    assert store.get(b"new") == b"y" * 100
    store.close()
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("SELECT sum(length(value)) FROM results").fetchone()[0] <= 1000
    database.close()


def test_a_disk_that_fails_costs_the_entry_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = DiskStore(tmp_path, 1000)
    store.close()
    store.put(b"a", b"b")
    assert store.get(b"a") is None
    assert "the cache on disk" in caplog.text


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSettings, match="the cache folder"):
        DiskStore(tmp_path / "file", 1000)
    (tmp_path / FILE).write_text("not a database" * 100)
    with pytest.raises(InvalidSettings, match="the cache folder"):
        DiskStore(tmp_path, 1000)
