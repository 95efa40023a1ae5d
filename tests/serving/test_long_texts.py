"""Texts that are too long, embedded as the mean of their windows where a request asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.embedder import Embedder
from mllm_embed.long_inputs import embed_text, mean
from mllm_embed.vectors import finish
from mllm_embed_serving.settings import ServerSettings

pytestmark = pytest.mark.fast

Post = Callable[..., Any]
LONG = " ".join(f"cat {number}" for number in range(200))


@pytest.fixture
def embedder(settings: ServerSettings) -> Iterator[Embedder]:
    """An embedder that takes 256 tokens."""
    with fake_embedder(matryoshka_dimensions=(16,), policy=settings.media_policy()) as fake:
        recipe = replace(fake.model_dir.recipe, max_tokens=256)
        with Embedder(replace(fake.model_dir, recipe=recipe), fake.backend) as small:
            yield small


@pytest.fixture
def ask(client: httpx.AsyncClient) -> Post:
    """Embed one item, and return its vector and the tokens that were read."""

    async def post(item: Any, **options: Any) -> tuple[Any, int]:
        answer = await client.post("/v1/embeddings", json={"model": "fake", "input": [item], **options})
        assert answer.status_code == 200, answer.text
        (found,) = answer.json()["data"]
        return np.asarray(found["embedding"], dtype=np.float32), answer.json()["usage"]["total_tokens"]

    return post


@pytest.mark.parametrize("options", [{}, {"instruction": "Look."}, {"task": "text-to-image"}])
async def test_a_long_text_is_the_mean_of_its_windows(ask: Post, embedder: Embedder, options: dict[str, Any]) -> None:
    windows = await asyncio.to_thread(embed_text, embedder, LONG, **options)
    assert len(windows) > 3
    expected = mean(windows)
    for name in ("windows", "WINDOWS"):
        vector, tokens = await ask(LONG, truncate=name, **options)
        np.testing.assert_allclose(vector, expected, atol=1e-6)
        assert tokens > 256 * (len(windows) - 1)
    cut, _ = await ask(LONG, truncate="windows", dimensions=16, **options)
    np.testing.assert_allclose(cut, finish(expected, 16), atol=1e-6)


async def test_parts_of_text_are_one_text_and_an_item_keeps_its_instruction(ask: Post) -> None:
    whole, _ = await ask({"text": LONG, "instruction": "Look."}, truncate="windows")
    parts = [{"type": "text", "text": part} for part in (LONG[:500], LONG[500:])]
    split, _ = await ask(parts, truncate="windows", instruction="Look.")
    np.testing.assert_array_equal(whole, split)


@pytest.mark.parametrize("text", ["short", " with space around \n"])
async def test_what_fits_is_embedded_as_it_is(ask: Post, text: str) -> None:
    plain, tokens = await ask(text)
    vector, again = await ask(text, truncate="windows")
    np.testing.assert_array_equal(vector, plain)
    assert tokens == again


async def test_pictures_have_no_windows(embed: Post, uri: Callable[..., str]) -> None:
    fits = {"text": "a", "image": uri(1)}
    assert (await embed(input=fits)).json()["data"] == (await embed(input=fits, truncate="windows")).json()["data"]
    answer = await embed(input={"text": LONG, "image": uri(1)}, truncate="windows")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


async def test_an_instruction_that_leaves_no_room_is_named(embed: Post) -> None:
    answer = await embed(input=["a", LONG], truncate="windows", instruction="cat " * 230, partial=True)
    message = answer.json()["data"][1]["error"]["message"]
    assert "windows must have room for more than the overlap of 32 tokens" in message
