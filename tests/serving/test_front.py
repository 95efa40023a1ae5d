"""Items on their way to the engine: the same vectors as the library's, and nobody waits for another's picture."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mllm_embed import sources
from mllm_embed.embedder import Embedder
from mllm_embed.errors import InvalidDimensions, InvalidInput, MediaTooLarge
from mllm_embed.types import Embedding, EmbedInput, Image, RenderedPrompt, Text
from mllm_embed_serving.metrics import Metrics
from mllm_embed_serving.pipeline.cache import ResultCache
from mllm_embed_serving.pipeline.front import Front
from mllm_embed_serving.pipeline.pictures import Pictures
from mllm_embed_serving.schemas.common import EmbeddingRequest
from mllm_embed_serving.settings import ServerSettings

pytestmark = pytest.mark.fast

Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(allow_url_media=True, max_request_pixels=3000)


@pytest.fixture
def front(embedder: Embedder, settings: ServerSettings) -> Front:
    metrics = Metrics()
    pictures = Pictures(settings.media_policy(), metrics, max_images=settings.max_images)
    return Front(
        embedder, pictures, ResultCache("", 2**20, None, metrics), metrics, max_numbers=10**6, max_tokens=10**6
    )


def asked(*items: Any, **options: Any) -> EmbeddingRequest:
    return EmbeddingRequest(inputs=tuple(EmbedInput.of(item) for item in items), **options)


class Watched:
    """Stands before the engine, counts prompts, and holds them back while it is told to."""

    def __init__(self, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts = 0
        self.go = asyncio.Event()
        self.go.set()
        self._embed = embedder.backend.embed
        monkeypatch.setattr(embedder.backend, "embed", self._watch)

    async def _watch(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        self.prompts += len(prompts)
        await self.go.wait()
        return await self._embed(prompts)


@pytest.fixture
def engine(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(embedder, monkeypatch)


async def test_vectors_are_the_librarys_bit_for_bit(
    front: Front, embedder: Embedder, uri: Callable[..., str], draw: Callable[..., PIL.Image.Image]
) -> None:
    turned = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # a photo taken with the camera on its side; turned once, not twice
    draw(4, 30, 20).save(turned, "PNG", exif=exif)
    side = "data:image/png;base64," + base64.b64encode(turned.getvalue()).decode()
    items = [
        EmbedInput.of("cat"),
        EmbedInput.of(Image(uri(1))),
        EmbedInput.of(Image(side), "at night", instruction="Look."),
        EmbedInput((Text("a"), Image(uri(2)), Text("b"))),
    ]
    asked_for: list[dict[str, Any]] = [
        {},
        {"dimensions": 16},
        {"task": "text-to-image", "role": "target"},
        {"instruction": "Look."},
    ]
    for options in asked_for:
        found = await front.embed(EmbeddingRequest(inputs=tuple(items), **options), "me")
        expected = await embedder.aembed(items, **options)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.vector, other.vector)
            assert (one.tokens, one.pixels) == (other.tokens, other.pixels)


async def test_equal_items_in_flight_reach_the_engine_once(front: Front, engine: Watched, until: Until) -> None:
    engine.go.clear()
    work = [asyncio.create_task(front.embed(asked("cat", "cat", "dog"), "me")) for _ in range(3)]
    await until(lambda: engine.prompts == 2)
    engine.go.set()
    answers = await asyncio.gather(*work)
    assert engine.prompts == 2
    for answer in answers:
        np.testing.assert_array_equal(answer[0].vector, answers[0][1].vector)
        assert not np.array_equal(answer[0].vector, answer[2].vector)


@pytest.mark.parametrize(
    "other",
    [
        {"dimensions": 16},
        {"instruction": "Look."},
        {"task": "text-to-image"},
        {"role": "target"},
        {"truncate": "end"},
        {"windows": True},
    ],
)
async def test_what_is_asked_for_differently_is_not_equal(front: Front, engine: Watched, other: dict[str, Any]) -> None:
    await asyncio.gather(front.embed(asked("cat"), "me"), front.embed(asked("cat", **other), "me"))
    assert engine.prompts == 2


async def test_what_one_caller_asks_for_is_never_handed_to_another(front: Front, engine: Watched) -> None:
    await asyncio.gather(front.embed(asked("cat"), "me"), front.embed(asked("cat"), "you"))
    assert engine.prompts == 2


async def test_content_that_runs_together_is_not_equal(front: Front, engine: Watched) -> None:
    await front.embed(asked("x"), "me")
    two, one = EmbedInput((Text("ab"), Text("c"))), EmbedInput((Text("a"), Text("bc")))
    await asyncio.gather(*(front.embed(EmbeddingRequest(inputs=(item,)), "me") for item in (one, two)))
    assert engine.prompts == 3


async def test_a_caller_who_leaves_takes_the_work_off_the_engine(front: Front, engine: Watched, until: Until) -> None:
    engine.go.clear()
    work = asyncio.create_task(front.embed(asked("cat", "dog"), "me"))
    await until(lambda: engine.prompts == 2)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await asyncio.sleep(0)
    assert len(front._flights) == 0


async def test_the_first_bad_item_is_named_whatever_happens_first(front: Front) -> None:
    with pytest.raises(InvalidInput) as caught:
        await front.embed(asked("a", " ", "", "b"), "me")
    assert caught.value.index == 1


async def test_a_width_that_is_not_offered_is_refused_before_any_work(front: Front, engine: Watched) -> None:
    with pytest.raises(InvalidDimensions):
        await front.embed(asked("a", dimensions=17), "me")
    assert engine.prompts == 0


async def test_the_pixels_of_a_request_are_counted_together(front: Front, uri: Callable[..., str]) -> None:
    await front.embed(asked(Image(uri(3, 50, 50))), "me")
    with pytest.raises(MediaTooLarge, match="3,000 pixels together"):
        await front.embed(asked(Image(uri(1, 50, 50)), Image(uri(2, 50, 50))), "me")


async def test_a_slow_picture_holds_up_nobody_else(
    front: Front, monkeypatch: pytest.MonkeyPatch, draw: Callable[..., PIL.Image.Image]
) -> None:
    arrives = asyncio.Event()
    buffer = io.BytesIO()
    draw(5, 24, 20).save(buffer, "PNG")

    async def slow(url: str, **_: Any) -> bytes:
        await arrives.wait()
        return buffer.getvalue()

    monkeypatch.setattr(sources, "fetch", slow)
    waiting = [
        asyncio.create_task(front.embed(asked(Image(f"https://example.com/{number}.png")), "me")) for number in range(4)
    ]
    async with asyncio.timeout(30):
        await front.embed(asked("cat"), "me")
    assert not any(task.done() for task in waiting)
    arrives.set()
    vectors = [answer[0].vector for answer in await asyncio.gather(*waiting)]
    (direct,) = await front.embed(asked(Image(buffer.getvalue())), "me")
    for vector in vectors:
        np.testing.assert_array_equal(vector, direct.vector)
