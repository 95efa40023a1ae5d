from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mllm_embed.backends.transformers import TransformersBackend, start
from mllm_embed.embedder import Embedder
from mllm_embed.errors import BackendError, BackendUnavailable, Overloaded
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.types import Embedding, EmbedInput, RenderedPrompt

Draw = Callable[..., PIL.Image.Image]
Until = Callable[[Callable[[], object]], Awaitable[None]]


class Gate:
    """Holds the worker before its first batch, and notes which batches it runs."""

    def __init__(self, backend: TransformersBackend) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.batches: list[list[RenderedPrompt]] = []
        self._run = backend._run
        backend._run = self  # type: ignore[method-assign]

    def __call__(self, batch: Sequence[object]) -> list[Embedding]:
        self.entered.set()
        self.open.wait(30)
        self.batches.append([job.prompt for job in batch])  # type: ignore[attr-defined]
        return self._run(batch)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model_dir(tiny_model: Callable[[str], Path]) -> ModelDir:
    return open_model_dir(tiny_model("qwen3_vl"))


@pytest.fixture
async def backend(model_dir: ModelDir) -> AsyncIterator[TransformersBackend]:
    started = start(model_dir, batch_tokens=64, max_waiting=8)
    yield started
    await started.aclose()


def text(length: int) -> RenderedPrompt:
    return RenderedPrompt(tuple(range(10, 10 + length)))


async def occupied(backend: TransformersBackend) -> tuple[Gate, asyncio.Task[list[Embedding]]]:
    """Bring the worker to its first batch and hold it there."""
    gate = Gate(backend)
    first = asyncio.create_task(backend.embed([text(3)]))
    assert await asyncio.to_thread(gate.entered.wait, 30)
    return gate, first


async def test_waiting_prompts_share_a_batch_of_similar_lengths(backend: TransformersBackend, until: Until) -> None:
    gate, first = await occupied(backend)
    calls = [asyncio.create_task(backend.embed([text(length)])) for length in (4, 30, 5, 31, 6)]
    await until(lambda: len(backend._waiting) == 5)
    gate.open.set()
    await asyncio.gather(first, *calls)
    lengths = [sorted(len(prompt.token_ids) for prompt in batch) for batch in gate.batches]
    assert lengths == [[3], [4, 5, 6], [30, 31]]


async def test_results_keep_the_callers_order_and_ignore_the_batch(backend: TransformersBackend, draw: Draw) -> None:
    prompts = [text(30), text(3), text(12), text(3)]
    together = await backend.embed(prompts)
    for embedding, prompt in zip(together, prompts, strict=True):
        (alone,) = await backend.embed([prompt])
        np.testing.assert_allclose(embedding.vector, alone.vector, atol=1e-5)
        assert embedding.tokens == len(prompt.token_ids)


async def test_a_prompt_beyond_the_token_budget_runs_alone(backend: TransformersBackend) -> None:
    assert [e.tokens for e in await backend.embed([text(100), text(90)])] == [100, 90]


async def test_an_error_reaches_its_callers_and_the_worker_lives_on(backend: TransformersBackend) -> None:
    with pytest.raises(BackendError, match="failed on a batch of 1 prompts"):
        await backend.embed([RenderedPrompt((10**6,))])
    backend.check_health()
    assert len(await backend.embed([text(3)])) == 1


async def test_a_cancelled_callers_prompts_are_never_run(backend: TransformersBackend, until: Until) -> None:
    gate, first = await occupied(backend)
    doomed = asyncio.create_task(backend.embed([text(20)]))
    await until(lambda: backend._waiting)
    doomed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doomed
    gate.open.set()
    await asyncio.gather(first, backend.embed([text(5)]))
    assert [len(batch[0].token_ids) for batch in gate.batches] == [3, 5]


async def test_cancelling_during_the_forward_pass_harms_nobody(backend: TransformersBackend) -> None:
    gate, first = await occupied(backend)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.open.set()
    assert len(await backend.embed([text(4)])) == 1


async def test_a_full_queue_refuses(backend: TransformersBackend, until: Until) -> None:
    gate, first = await occupied(backend)
    waiting = asyncio.create_task(backend.embed([text(4)] * 8))
    await until(lambda: backend._waiting)
    with pytest.raises(Overloaded, match="8 prompts are waiting, and at most 8 may"):
        await backend.embed([text(5)])
    gate.open.set()
    assert [len(result) for result in await asyncio.gather(first, waiting)] == [1, 8]


async def test_one_large_call_into_an_empty_queue_is_taken(backend: TransformersBackend) -> None:
    assert len(await backend.embed([text(3)] * 20)) == 20


async def test_closing_fails_what_waits_and_ends_the_thread(backend: TransformersBackend, until: Until) -> None:
    gate, first = await occupied(backend)
    waiting = asyncio.create_task(backend.embed([text(4)]))
    await until(lambda: backend._waiting)
    closing = asyncio.create_task(backend.aclose())
    await asyncio.sleep(0)
    gate.open.set()
    await closing
    assert len(await first) == 1  # the batch under way is finished
    with pytest.raises(BackendUnavailable, match="closed"):
        await waiting
    with pytest.raises(BackendUnavailable, match="closed"):
        await backend.embed([text(3)])
    assert not backend._thread.is_alive()
    await backend.aclose()


@pytest.mark.parametrize(("precision", "least"), [("bfloat16", 0.995), ("float16", 0.999), ("4bit", 0.7)])
def test_lower_precision_stays_close(
    tiny_model: Callable[[str], Path], draw: Draw, precision: str, least: float
) -> None:
    path = tiny_model("qwen3_vl")
    items = ["a red cat", (draw(1), "what is it")]
    with (
        Embedder.load(path, backend="transformers") as full,
        Embedder.load(path, backend="transformers", precision=precision) as low,
    ):
        exact, rounded = full.embed(items), low.embed(items)
    assert rounded.dtype == np.float32
    similarity = (exact * rounded).sum(axis=1)
    assert least <= min(similarity) < 0.9999999


def test_flash_attention_without_its_package_is_refused(model_dir: ModelDir) -> None:
    with pytest.raises(BackendUnavailable, match="flash_attention_2"):
        start(model_dir, attention="flash_attention_2")


async def test_it_serves_several_event_loops(model_dir: ModelDir) -> None:
    embedder = Embedder(model_dir, start(model_dir))
    here = await embedder.aembed([EmbedInput.of("a")])
    there = await asyncio.to_thread(embedder.embed, ["a"])
    np.testing.assert_allclose(here[0].vector, there[0], atol=1e-6)
    await embedder.aclose()
