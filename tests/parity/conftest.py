"""One engine of each kind per family, tuned and plain: vLLM runs both in one engine, with and without the adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mllm_embed.backends.vllm import VllmBackend
from mllm_embed.embedder import Embedder
from mllm_embed.model_dir import open_model_dir
from mllm_embed.types import Embedding, RenderedPrompt


class _WithoutAdapter:
    """The base model of a vLLM engine that carries an adapter."""

    name = "vllm"

    def __init__(self, engine: VllmBackend) -> None:
        self._engine = engine

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        return await self._engine.embed_base(prompts)

    def check_health(self) -> None:
        self._engine.check_health()

    async def aclose(self) -> None:
        """The engine belongs to the embedder with the adapter."""


@dataclass(frozen=True)
class Pair:
    """The same model on both engines."""

    transformers: Embedder
    vllm: Embedder


@dataclass(frozen=True)
class Engines:
    """A base model and the same with its adapter."""

    base: Pair
    tuned: Pair


@pytest.fixture(scope="session", params=["qwen3_vl", "qwen2_vl"])
def engines(
    request: pytest.FixtureRequest, tiny_model: Callable[[str], Path], tiny_adapter: Callable[[str], Path]
) -> Iterator[Engines]:
    base, tuned = tiny_model(request.param), tiny_adapter(request.param)
    with (
        Embedder.load(tuned, backend="vllm") as vllm,
        Embedder.load(base, backend="transformers") as plain,
        Embedder.load(tuned, backend="transformers") as adapted,
    ):
        assert isinstance(vllm.backend, VllmBackend)
        vllm_base = Embedder(open_model_dir(base), _WithoutAdapter(vllm.backend))
        yield Engines(Pair(plain, vllm_base), Pair(adapted, vllm))
