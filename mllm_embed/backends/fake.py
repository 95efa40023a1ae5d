"""A backend without a model: hash vectors. It ships, so that servers, tools and their tests run without any engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.errors import BackendUnavailable
from mllm_embed.lexical import WordTable
from mllm_embed.model_dir import RECIPE_FILE, ModelDir, Recipe
from mllm_embed.types import SOFT_ID, Embedding, RenderedPrompt

if TYPE_CHECKING:
    import PIL.Image

    from mllm_embed.embedder import Embedder
    from mllm_embed.media import MediaPolicy

FAKE_MODEL = Path(__file__).parent / "_fake_model"
"""A model directory without weights: a byte-level tokenizer, pixel limits, a recipe."""

_RUN = 4
"""Longest run of tokens that has a direction of its own; runs tell words apart where a token is a single byte."""


class FakeBackend:
    """Deterministic vectors: the sum of one random direction per run of tokens and per picture.

    Prompts that share words are similar, so that a search over fake vectors finds what shares words. The vectors of a
    multivector are the prompt's, each moved by its place; lexical weights count the prompt's tokens.

    Args:
        dimensions: width of the vectors.
        adapter: hash of an adapter, which moves every vector in a direction of its own.
        tokenizer_file: the tokenizer of the prompts.
    """

    name = "fake"

    def __init__(
        self,
        dimensions: int = 64,
        adapter: str | None = None,
        tokenizer_file: Path = FAKE_MODEL / "tokenizer.json",
    ) -> None:
        self._dimensions = dimensions
        self._adapter = adapter
        self._tokenizer_file = tokenizer_file
        self._words = WordTable(tokenizer_file)
        self._closed = False

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return one vector per prompt; see `Backend.embed`."""
        self.check_health()
        return [self._embedding(prompt) for prompt in prompts]

    def check_health(self) -> None:
        """Raise `BackendUnavailable` after `aclose`."""
        if self._closed:
            raise BackendUnavailable("the fake backend has been closed")

    async def aclose(self) -> None:
        """Refuse work from now on."""
        self._closed = True

    async def with_adapter(self, model_dir: ModelDir) -> FakeBackend:
        """Return the same vectors, moved; see `RunsAdapters.with_adapter`."""
        self.check_health()
        return FakeBackend(self._dimensions, model_dir.recipe.adapter_sha256, self._tokenizer_file)

    def _embedding(self, prompt: RenderedPrompt) -> Embedding:
        vector = self._vector(prompt)
        multivector, lexical = None, None
        if prompt.content is not None:
            places = [5 * _direction(f"place {place}", self._dimensions) for place in range(sum(prompt.content))]
            multivector = vector + np.stack(places)
        if prompt.words:
            spelt = [token_id for token_id in prompt.token_ids if token_id != SOFT_ID]
            logits = np.bincount(spelt).astype(np.float32)
            lexical = self._words.weigh(logits, prompt.words)
        return Embedding(vector, len(prompt.token_ids), multivector=multivector, lexical=lexical)

    def _vector(self, prompt: RenderedPrompt) -> NDArray[np.float32]:
        vector = np.zeros(self._dimensions, dtype=np.float32)
        for start in range(len(prompt.token_ids)):
            for end in range(start + 1, min(start + _RUN, len(prompt.token_ids)) + 1):
                vector += (end - start) * _direction(f"tokens {prompt.token_ids[start:end]}", self._dimensions)
        for place, image in enumerate(prompt.images):
            key = _image_key(image)
            vector += 20 * _direction(key, self._dimensions)  # a picture weighs as much as a word
            vector += 5 * _direction(f"{key} at {place}", self._dimensions)
        if prompt.soft is not None:
            key = hashlib.sha256(prompt.soft.tobytes()).hexdigest()
            vector += 20 * _direction(f"soft {key}", self._dimensions)
        if self._adapter is not None:
            vector += 5 * _direction(f"adapter {self._adapter}", self._dimensions)
        return vector


def start(model_dir: ModelDir, **_options: Any) -> FakeBackend:
    """Make the fake engine for a model directory: its width, none of its weights."""
    return FakeBackend(model_dir.recipe.dimensions, tokenizer_file=model_dir.tokenizer_file)


def fake_embedder(
    *, dimensions: int = 64, matryoshka_dimensions: tuple[int, ...] = (), policy: MediaPolicy | None = None
) -> Embedder:
    """Make an embedder that needs no model: hash vectors behind the real prompts, limits and finishing.

    Args:
        dimensions: full width.
        matryoshka_dimensions: widths offered besides the full one; empty means any.
        policy: media limits.
    """
    from dataclasses import replace

    from mllm_embed.embedder import Embedder

    recipe = Recipe.from_json((FAKE_MODEL / RECIPE_FILE).read_text(encoding="utf-8"), FAKE_MODEL / RECIPE_FILE)
    recipe = replace(recipe, dimensions=dimensions, matryoshka_dimensions=matryoshka_dimensions)
    return Embedder(ModelDir(FAKE_MODEL, FAKE_MODEL, None, recipe), FakeBackend(dimensions), policy)


@lru_cache(maxsize=65536)
def _direction(key: str, dimensions: int) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    direction: NDArray[np.float32] = np.random.default_rng(seed).standard_normal(dimensions, dtype=np.float32)
    direction.flags.writeable = False
    return direction


def _image_key(image: PIL.Image.Image) -> str:
    return f"image {image.size} {hashlib.sha256(image.tobytes()).hexdigest()}"
