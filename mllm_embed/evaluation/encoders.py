"""What can be measured: any `Embedder`, and the pixel baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mllm_embed.media import MediaPolicy, load_sync
from mllm_embed.types import EmbedInput, Image
from mllm_embed.vectors import finish

if TYPE_CHECKING:
    from mllm_embed.embedder import Embedder

PIXELS = "pixels"
"""Name of the pixel baseline."""
_PIXEL_SIDE = 14


class Encoder(Protocol):
    """Something that turns items into unit vectors."""

    def describe(self) -> dict[str, Any]:
        """Return what decides the vectors, as JSON values: at least `name` and `fingerprint`."""
        ...

    def accepts(self, item: EmbedInput) -> bool:
        """Whether this item can be encoded; tasks with other items are left out."""
        ...

    def encode(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
        """Return unit vectors, float32, shape [N, D], in order."""
        ...


class EmbedderEncoder:
    """Measures an `Embedder` at full width.

    Args:
        embedder: the model and its engine.
        precision: the precision it was loaded in, for the record.
    """

    def __init__(self, embedder: Embedder, *, precision: str) -> None:
        self._embedder = embedder
        self._precision = precision

    def describe(self) -> dict[str, Any]:
        """Return the model's recipe, fingerprint, engine and precision."""
        recipe = self._embedder.model_dir.recipe
        return {
            "name": self._embedder.name,
            "fingerprint": self._embedder.model_dir.fingerprint,
            "family": recipe.family,
            "template": recipe.template,
            "template_version": recipe.template_version,
            "pooling": recipe.pooling,
            "min_pixels": recipe.min_pixels,
            "max_pixels": recipe.max_pixels,
            "full_dimensions": recipe.dimensions,
            "backend": self._embedder.backend.name,
            "precision": self._precision,
        }

    def accepts(self, item: EmbedInput) -> bool:
        """Every item."""
        del item
        return True

    def encode(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
        """Embed with the items' own instructions."""
        return self._embedder.embed(items)


class PixelEncoder:
    """The pixel baseline: 14 x 14 RGB values as the vector, for items that are one picture."""

    def describe(self) -> dict[str, Any]:
        """Return the baseline's name."""
        return {"name": PIXELS, "fingerprint": f"{PIXELS}-{_PIXEL_SIDE}x{_PIXEL_SIDE}-rgb"}

    def accepts(self, item: EmbedInput) -> bool:
        """Single pictures only."""
        return len(item.content) == 1 and isinstance(item.content[0], Image)

    def encode(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
        """Shrink each picture and scale its values to [0, 1]; black is kept off zero, since zero has no direction."""
        policy = MediaPolicy.local()
        vectors = np.empty((len(items), _PIXEL_SIDE * _PIXEL_SIDE * 3), dtype=np.float32)
        for row, item in enumerate(items):
            (content,) = item.content
            if not isinstance(content, Image):
                raise TypeError(f"the pixel baseline takes pictures, but item {row} is {type(content).__name__}")
            small = load_sync(content, policy).resize((_PIXEL_SIDE, _PIXEL_SIDE))
            vectors[row] = np.maximum(np.asarray(small, dtype=np.float32) / 255.0, 1e-3).ravel()
        return finish(vectors)
