"""LoRA adapters that come and go while an engine runs: the same rules on every engine."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from mllm_embed.adapters import AdapterRoom, open_adapter
from mllm_embed.backends import RunsAdapters
from mllm_embed.embedder import Embedder
from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.model_dir import ModelDir
from mllm_embed.types import EmbedInput

pytestmark = pytest.mark.engine

INPUTS = [EmbedInput.of(text) for text in ("a red cat", "a blue dog in the picture", "what is it")]
Vectors = NDArray[np.float32]


def copied(source: Path, target: Path, *, scale: float = 1.0, prefix: str = "", shape: bool = True) -> Path:
    """Copy an adapter with its effect scaled, its keys renamed, or its matrices cut."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    weights = load_file(source / "adapter_model.safetensors")
    weights = {f"{prefix}{key}": value * (scale if "lora_B" in key else 1) for key, value in weights.items()}
    if not shape:
        weights = {key: value[..., :-1] if "lora_A" in key else value for key, value in weights.items()}
    save_file(
        {key: np.ascontiguousarray(value) for key, value in weights.items()}, target / "adapter_model.safetensors"
    )
    return target


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def base(request: pytest.FixtureRequest, tiny_model: Callable[[str], Path]) -> Iterator[Embedder]:
    room = AdapterRoom(slots=2, rank=8)
    with Embedder.load(tiny_model("qwen3_vl"), backend=request.param, adapters=room) as started:
        yield started


@pytest.fixture(scope="module")
def lora(tiny_adapter: Callable[[str], Path]) -> Path:
    return tiny_adapter("qwen3_vl") / "adapter"


async def vectors(embedder: Embedder) -> Vectors:
    return np.stack([one.vector for one in await embedder.aembed(INPUTS)])


async def loaded(base: Embedder, folder: Path) -> Embedder:
    assert isinstance(base.backend, RunsAdapters)
    model_dir: ModelDir = open_adapter(base.model_dir, "tuned", folder)
    return Embedder(model_dir, await base.backend.with_adapter(model_dir))


def closeness(left: Vectors, right: Vectors) -> float:
    return float(np.min(np.sum(left * right, axis=1)))


@pytest.fixture(scope="module")
def expected(
    lora: Path, tiny_adapter: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> list[Vectors]:
    """The vectors of the adapter, and of a stronger one, each loaded as a model of its own."""
    model = tiny_adapter("qwen3_vl")
    stronger = shutil.copytree(model, tmp_path_factory.mktemp("stronger") / "model")
    copied(lora, stronger / "adapter", scale=3)
    found = []
    for path in (model, stronger):
        with Embedder.load(path, backend="transformers") as alone:
            found.append(asyncio.run(vectors(alone)))
    return found


async def test_each_vector_is_that_of_the_adapter_asked_for(
    base: Embedder, lora: Path, expected: list[Vectors], tmp_path: Path
) -> None:
    plain = await vectors(base)
    one = await loaded(base, lora)
    two = await loaded(base, copied(lora, tmp_path / "stronger", scale=3))
    assert closeness(expected[0], expected[1]) < 0.999, "the two adapters differ"
    assert np.array_equal(await vectors(base), plain), "the model's own vectors are as before"
    found = await asyncio.gather(*(vectors(each) for each in (one, base, two, one, base, two)))
    for got, right in zip(found, [expected[0], plain, expected[1]] * 2, strict=True):
        assert closeness(got, right) >= 0.99999
    await one.backend.aclose()
    assert closeness(await vectors(two), expected[1]) >= 0.99999
    await two.backend.aclose()
    assert np.array_equal(await vectors(base), plain)


async def test_an_adapter_that_is_loaded_again_is_read_again(
    base: Embedder, lora: Path, expected: list[Vectors], tmp_path: Path
) -> None:
    first = await loaded(base, copied(lora, tmp_path / "adapter"))
    assert closeness(await vectors(first), expected[0]) >= 0.99999
    await first.backend.aclose()
    again = await loaded(base, copied(lora, tmp_path / "adapter", scale=3))
    assert again.model_dir.fingerprint != first.model_dir.fingerprint
    assert closeness(await vectors(again), expected[1]) >= 0.99999
    await again.backend.aclose()


@pytest.mark.parametrize(
    "fault",
    [{"scale": 0.0}, {"prefix": "other."}, {"shape": False}],
    ids=["changes nothing", "keys of another model", "shapes of another model"],
)
async def test_one_that_does_not_fit_is_refused_and_leaves_no_trace(
    base: Embedder, lora: Path, expected: list[Vectors], tmp_path: Path, fault: dict[str, float]
) -> None:
    plain = await vectors(base)
    bad = copied(lora, tmp_path / "bad", **fault)  # type: ignore[arg-type]
    with pytest.raises(IncompatibleCheckpoint):
        await loaded(base, bad)
    assert np.array_equal(await vectors(base), plain)
    good = await loaded(base, lora)
    with pytest.raises(IncompatibleCheckpoint):
        await loaded(base, bad)
    assert closeness(await vectors(good), expected[0]) >= 0.99999
    await good.backend.aclose()


async def test_a_model_with_an_adapter_of_its_own_keeps_it(
    tiny_adapter: Callable[[str], Path], lora: Path, expected: list[Vectors], tmp_path: Path
) -> None:
    with Embedder.load(tiny_adapter("qwen3_vl"), backend="transformers") as tuned:
        other = await loaded(tuned, copied(lora, tmp_path / "stronger", scale=3))
        assert closeness(await vectors(other), expected[1]) >= 0.99999
        assert closeness(await vectors(tuned), expected[0]) >= 0.99999
        await other.backend.aclose()
        assert closeness(await vectors(tuned), expected[0]) >= 0.99999


async def test_waiting_for_an_adapter_does_not_hold_up_the_engine(base: Embedder, lora: Path) -> None:
    plain = await vectors(base)
    working = [asyncio.ensure_future(vectors(base)) for _ in range(8)]
    tuned: Awaitable[Embedder] = loaded(base, lora)
    await (await tuned).backend.aclose()
    assert all(np.allclose(one, plain, atol=1e-6) for one in await asyncio.gather(*working))


def test_more_than_there_is_room_for_is_said_before_anything_is_loaded(base: Embedder, lora: Path) -> None:
    opened = open_adapter(base.model_dir, "tuned", lora)
    assert AdapterRoom.for_all([opened], slots=0, rank=1) == AdapterRoom(slots=1, rank=4)
    assert AdapterRoom.for_all([replace(opened, adapter=None)], slots=2, rank=1) == AdapterRoom(slots=2, rank=1)
