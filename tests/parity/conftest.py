"""One engine of each kind per family, tuned and plain: vLLM runs both in one engine, with and without the adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mllm_embed.backends.vllm import VllmBackend
from mllm_embed.embedder import Embedder
from mllm_embed.families import FAMILIES, get_family
from mllm_embed.model_dir import open_model_dir
from mllm_embed.types import Embedding, RenderedPrompt

SERVED = [name for name, family in FAMILIES.items() if family.vllm.refused is None]
"""What vLLM serves is compared: to compare another family, take its `refused` away."""


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
    """A base model, and the same with its adapter where vLLM runs adapters on the family."""

    family: str
    base: Pair
    tuned: Pair | None

    @property
    def adapted(self) -> Pair:
        """The model with its adapter; skips the test where there is none."""
        if self.tuned is None:
            pytest.skip(f"vLLM runs no adapters on {self.family}")
        return self.tuned


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One parameter per family, so that an engine is started once for all tests of its family."""
    if "engines" in metafunc.fixturenames:
        metafunc.parametrize("engines", SERVED, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def quick_ends() -> Iterator[None]:
    """Engines have freed everything in half a second; their interpreters linger until they are killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mllm_embed.backends.vllm._SHUTDOWN_S", 0.5)
        yield


@pytest.fixture(scope="session")
def engines(
    request: pytest.FixtureRequest, tiny_model: Callable[[str], Path], tiny_adapter: Callable[[str], Path]
) -> Iterator[Engines]:
    family, base = request.param, tiny_model(request.param)
    if not get_family(family).vllm.lora:
        with (
            Embedder.load(base, backend="vllm") as vllm,
            Embedder.load(base, backend="transformers") as plain,
        ):
            yield Engines(family, Pair(plain, vllm), None)
        return
    tuned = tiny_adapter(family)
    with (
        Embedder.load(tuned, backend="vllm") as vllm,
        Embedder.load(base, backend="transformers") as plain,
        Embedder.load(tuned, backend="transformers") as adapted,
    ):
        assert isinstance(vllm.backend, VllmBackend)
        vllm_base = Embedder(open_model_dir(base), _WithoutAdapter(vllm.backend))
        yield Engines(family, Pair(plain, vllm_base), Pair(adapted, vllm))
