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
from mllm_embed.model_dir import RECIPE_FILE, ModelDir, Recipe
from mllm_embed.types import Embedding, RenderedPrompt

if TYPE_CHECKING:
    import PIL.Image

    from mllm_embed.embedder import Embedder
    from mllm_embed.media import MediaPolicy

_ORDER = 0.25
"""Share of the part that depends on a token's place: order matters, but less than which tokens there are."""


class FakeBackend:
    """Deterministic vectors: the sum of one random direction per token and per picture.

    Prompts that share tokens are similar, so that a search over fake vectors finds what shares words.

    Args:
        dimensions: width of the vectors.
    """

    name = "fake"

    def __init__(self, dimensions: int = 64) -> None:
        self._dimensions = dimensions
        self._closed = False

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        """Return one vector per prompt; see `Backend.embed`."""
        self.check_health()
        return [Embedding(self._vector(prompt), len(prompt.token_ids)) for prompt in prompts]

    def check_health(self) -> None:
        """Raise `BackendUnavailable` after `aclose`."""
        if self._closed:
            raise BackendUnavailable("the fake backend has been closed")

    async def aclose(self) -> None:
        """Refuse work from now on."""
        self._closed = True

    def _vector(self, prompt: RenderedPrompt) -> NDArray[np.float32]:
        vector = np.zeros(self._dimensions, dtype=np.float32)
        for place, token_id in enumerate(prompt.token_ids):
            vector += _direction(f"token {token_id}", self._dimensions)
            vector += _ORDER * _direction(f"token {token_id} at {place}", self._dimensions)
        for place, image in enumerate(prompt.images):
            key = _image_key(image)
            vector += 4 * _direction(key, self._dimensions)  # a picture weighs as much as a few tokens
            vector += _direction(f"{key} at {place}", self._dimensions)
        return vector


def start(model_dir: ModelDir, **_options: Any) -> FakeBackend:
    """Make the fake engine for a model directory: its width, none of its weights."""
    return FakeBackend(model_dir.recipe.dimensions)


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

    folder = Path(__file__).parent / "_fake_model"
    recipe = Recipe.from_json((folder / RECIPE_FILE).read_text(encoding="utf-8"), folder / RECIPE_FILE)
    recipe = replace(recipe, dimensions=dimensions, matryoshka_dimensions=matryoshka_dimensions)
    return Embedder(ModelDir(folder, folder, None, recipe), FakeBackend(dimensions), policy)


@lru_cache(maxsize=65536)
def _direction(key: str, dimensions: int) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    direction: NDArray[np.float32] = np.random.default_rng(seed).standard_normal(dimensions, dtype=np.float32)
    direction.flags.writeable = False
    return direction


def _image_key(image: PIL.Image.Image) -> str:
    return f"image {image.size} {hashlib.sha256(image.tobytes()).hexdigest()}"
