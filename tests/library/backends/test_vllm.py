"""What is particular to the vLLM engine; that its vectors are right is shown in `tests/parity`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mllm_embed.adapters import AdapterRoom
from mllm_embed.backends import load_backend
from mllm_embed.backends.vllm import VllmBackend, start
from mllm_embed.backends.vllm_settings import adapter_options, check_room, engine_environment
from mllm_embed.embedder import Embedder
from mllm_embed.errors import BackendUnavailable, IncompatibleCheckpoint, InvalidInput, Overloaded
from mllm_embed.families import FAMILIES, get_family
from mllm_embed.families.base import VllmSupport
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.types import EmbedInput, RenderedPrompt

Draw = Callable[..., PIL.Image.Image]
Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture(scope="module")
def embedder(tiny_model: Callable[[str], Path]) -> Iterator[Embedder]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")  # so that `watched` can send a function into the engine
        with Embedder.load(tiny_model("qwen3_vl"), backend="vllm", max_waiting=64) as started:
            yield started


@pytest.fixture
def backend(embedder: Embedder) -> VllmBackend:
    assert isinstance(embedder.backend, VllmBackend)
    return embedder.backend


def text(length: int) -> RenderedPrompt:
    return RenderedPrompt(tuple(range(10, 10 + length)))


@pytest.mark.engine
async def test_the_plain_engine_equals_transformers(
    embedder: Embedder, tiny_model: Callable[[str], Path], draw: Draw
) -> None:
    inputs = [EmbedInput.of("a red cat"), EmbedInput.of(draw(1), "what is it", draw(2))]
    async with Embedder.load(tiny_model("qwen3_vl"), backend="transformers") as other:
        pairs = zip(await embedder.aembed(inputs), await other.aembed(inputs), strict=True)
    assert min(float(left.vector @ right.vector) for left, right in pairs) >= 0.9999


@pytest.mark.engine
def test_a_script_needs_no_main_guard_and_no_close(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from mllm_embed import Embedder\n"
        "print('once')\n"
        f"embedder = Embedder.load({str(tiny_model('qwen3_vl'))!r}, backend='vllm')\n"
        "print(embedder.embed(['a red circle', 'a cat']).shape)\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["once", "(2, 64)"]
    assert "Traceback" not in done.stderr


@pytest.mark.engine
async def test_it_serves_several_event_loops(embedder: Embedder) -> None:
    here = await embedder.aembed([EmbedInput.of("a")])
    there = await asyncio.to_thread(embedder.embed, ["a"])
    np.testing.assert_allclose(here[0].vector, there[0], atol=1e-6)


@pytest.mark.engine
async def test_the_longest_prompt_is_taken_and_a_longer_one_refused(backend: VllmBackend) -> None:
    longest = RenderedPrompt((20,) * 512)
    assert (await backend.embed([longest]))[0].tokens == 512
    with pytest.raises(InvalidInput) as caught:
        await backend.embed([text(3), RenderedPrompt((20,) * 513)])
    assert caught.value.index == 1
    assert len(await backend.embed([text(3)])) == 1


@pytest.mark.engine
async def test_a_cancelled_callers_prompts_are_aborted(backend: VllmBackend, until: Until) -> None:
    task = asyncio.create_task(backend.embed([RenderedPrompt((20,) * 500 + (i,)) for i in range(30, 60)]))
    await until(backend._engine.get_num_unfinished_requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not backend._engine.get_num_unfinished_requests())
    assert backend._under_way == 0


@dataclass
class Work:
    """What the engine's process has computed since it was watched.

    Attributes:
        pictures: that went through the vision tower.
        tokens: that went through the language model.
    """

    pictures: int
    tokens: int


async def watched(backend: VllmBackend) -> Callable[[], Awaitable[Work]]:
    """Count, inside the engine's process, what it computes from now on."""

    engine: Any = backend._engine

    def watch(worker: Any) -> None:
        runner, counts = worker.model_runner, {"pictures": 0, "tokens": 0}
        encode, execute = runner.model.embed_multimodal, runner.execute_model

        def encoded(**pictures: Any) -> Any:
            counts["pictures"] += len(pictures["image_grid_thw"])
            return encode(**pictures)

        def executed(scheduled: Any, *more: Any) -> Any:
            counts["tokens"] += scheduled.total_num_scheduled_tokens
            return execute(scheduled, *more)

        runner.model.embed_multimodal, runner.execute_model = encoded, executed
        worker.counts = counts

    def read(worker: Any) -> dict[str, int]:
        found: dict[str, int] = worker.counts
        return found

    async def work() -> Work:
        (counts,) = await backend._loop.arun(engine.collective_rpc(read))
        return Work(**counts)

    await backend._loop.arun(engine.collective_rpc(watch))
    return work


@pytest.mark.engine
async def test_a_picture_is_encoded_once_under_many_instructions_and_its_states_are_used_again(
    embedder: Embedder, backend: VllmBackend, draw: Draw
) -> None:
    work = await watched(backend)
    picture = draw(5, 256, 256)
    for number in range(4):
        await embedder.aembed([EmbedInput.of(picture)], instruction=f"What is to be seen, for reader {number}?")
    assert (await work()).pictures == 1
    await embedder.aembed([EmbedInput.of(draw(6, 256, 256))])
    assert (await work()).pictures == 2, "another picture is another one"
    long, lengths, spent = "Look for what is red. " * 15, list[int](), list[int]()
    for number in range(3):
        before = await work()
        (embedding,) = await embedder.aembed([EmbedInput.of(draw(7), f"and text {number}")], instruction=long)
        lengths.append(embedding.tokens)
        spent.append((await work()).tokens - before.tokens)
    assert spent[0] == lengths[0]
    assert max(spent[1:]) <= lengths[0] - 128, "on a CPU vLLM keeps states by blocks of 128 tokens"


@pytest.mark.engine
async def test_a_full_engine_refuses(backend: VllmBackend) -> None:
    task = asyncio.create_task(backend.embed([text(200)] * 64))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="64 prompts are under way, and at most 64 may be"):
        await backend.embed([text(3)])
    assert len(await task) == 64


@pytest.mark.engine
async def test_a_dead_engine_is_noticed(backend: VllmBackend, until: Until) -> None:
    """The last test on this engine: it kills it while it works."""
    backend.check_health()
    resources: Any = backend._engine.engine_core.resources
    (process,) = resources.engine_manager.processes  # this engine's, whatever others the session runs
    task = asyncio.create_task(backend.embed([RenderedPrompt((20,) * 500 + (i,)) for i in range(30, 90)]))
    await until(backend._engine.get_num_unfinished_requests)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(BackendUnavailable, match="died"):
        await task
    with pytest.raises(BackendUnavailable, match="died"):
        backend.check_health()
    with pytest.raises(BackendUnavailable, match="died"):
        await backend.embed([text(3)])


def adapter_with(tmp_path: Path, source: Path, **changes: object) -> ModelDir:
    shutil.copytree(source, tmp_path / "model")
    file = tmp_path / "model" / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return open_model_dir(tmp_path / "model")


def test_a_dora_adapter_is_refused(tiny_adapter: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="DoRA"):
        adapter_options(adapter_with(tmp_path, tiny_adapter("qwen3_vl"), use_dora=True), None, on_cpu=False)


def test_a_rank_beyond_the_engines_is_refused(tiny_adapter: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="at most 512 in vLLM, but is 600"):
        adapter_options(adapter_with(tmp_path, tiny_adapter("qwen3_vl"), r=600), None, on_cpu=False)


@pytest.mark.parametrize(("rank", "room"), [(1, 8), (4, 8), (16, 16), (48, 64)])
def test_the_engine_makes_room_for_the_rank(
    tiny_adapter: Callable[[str], Path], tmp_path: Path, rank: int, room: int
) -> None:
    options = adapter_options(adapter_with(tmp_path, tiny_adapter("qwen3_vl"), r=rank), None, on_cpu=False)
    assert options["max_lora_rank"] == room
    assert options["enable_tower_connector_lora"] is False


def test_there_is_room_for_adapters_beside_the_models_own(
    tiny_model: Callable[[str], Path], tiny_adapter: Callable[[str], Path]
) -> None:
    room = AdapterRoom(slots=3, rank=16)
    plain, tuned = (
        adapter_options(open_model_dir(make("qwen3_vl")), room, on_cpu=False) for make in (tiny_model, tiny_adapter)
    )
    assert (plain["max_loras"], tuned["max_loras"]) == (3, 4)
    assert plain["max_lora_rank"] == tuned["max_lora_rank"] == 16
    assert adapter_options(open_model_dir(tiny_model("qwen3_vl")), None, on_cpu=False) == {}


def test_on_a_cpu_the_last_slot_for_adapters_stays_empty(tiny_model: Callable[[str], Path]) -> None:
    options = adapter_options(open_model_dir(tiny_model("qwen3_vl")), AdapterRoom(slots=3, rank=16), on_cpu=True)
    assert options["max_loras"] == 4


def test_an_adapter_on_the_tower_is_refused_where_vllm_runs_none(
    tiny_adapter: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = open_model_dir(tiny_adapter("qwen3_vl"))
    family = replace(tuned.family, tower="model.language_model")  # as if every key were the tower's
    monkeypatch.setitem(FAMILIES, "qwen3_vl", family)
    assert adapter_options(tuned, None, on_cpu=False)["enable_tower_connector_lora"] is True
    with pytest.raises(IncompatibleCheckpoint, match="must be prepared when it starts"):
        check_room(tuned, AdapterRoom(slots=1, rank=8))
    monkeypatch.setitem(FAMILIES, "qwen3_vl", replace(family, vllm=VllmSupport()))
    with pytest.raises(IncompatibleCheckpoint, match="adapts the vision tower, which vLLM cannot do"):
        adapter_options(tuned, None, on_cpu=False)


@pytest.mark.parametrize(
    ("family", "adapted", "says"),
    [("gemma3", False, "both directions"), ("qwen3_5", True, "bfloat16 only")],
)
def test_a_family_that_vllm_cannot_serve_is_refused_and_goes_to_transformers(
    family: str,
    adapted: bool,
    says: str,
    tiny_model: Callable[[str], Path],
    tiny_adapter: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model_dir = open_model_dir((tiny_adapter if adapted else tiny_model)(family))
    with pytest.raises(BackendUnavailable, match=rf"^vLLM cannot serve .*{says}.*; use the transformers backend$"):
        start(model_dir)
    chosen: list[ModelDir] = []
    monkeypatch.setattr("mllm_embed.backends.transformers.start", lambda model_dir, **_: chosen.append(model_dir))
    load_backend("auto", model_dir)
    assert chosen == [model_dir]


def test_an_adapter_is_refused_where_vllm_runs_none(
    tiny_adapter: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = get_family("qwen3_vl")
    monkeypatch.setitem(FAMILIES, "qwen3_vl", replace(family, vllm=VllmSupport(lora=False)))
    with pytest.raises(BackendUnavailable, match="it runs no adapters on the family qwen3_vl"):
        start(open_model_dir(tiny_adapter("qwen3_vl")))


def test_four_bits_on_a_cpu_are_refused_before_anything_starts(tiny_model: Callable[[str], Path]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendUnavailable, match="transformers backend"):
        start(open_model_dir(tiny_model("qwen3_vl")), precision="4bit")


def test_a_model_that_vllm_cannot_run_is_refused(tiny_model: Callable[[str], Path]) -> None:
    model_dir = open_model_dir(tiny_model("qwen3_vl"))
    longer = replace(model_dir, recipe=replace(model_dir.recipe, max_tokens=10**6))
    with pytest.raises(BackendUnavailable, match=r"vLLM does not start: .*max"):
        start(longer)


def test_the_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/before")
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    with engine_environment():
        assert os.environ["PYTHONPATH"].endswith(f"_engine_site{os.pathsep}/before")
        assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert os.environ["PYTHONPATH"] == "/before"
    assert "VLLM_NO_USAGE_STATS" not in os.environ
