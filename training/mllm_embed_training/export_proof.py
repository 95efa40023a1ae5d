"""Proof that an exported model gives the trained one's vectors: a fixed set of inputs, embedded before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import InputBuilder
from mllm_embed.prompts import PromptRenderer
from mllm_embed.tasks import DEFAULT, get_task
from mllm_embed.toy_shapes import scenes
from mllm_embed.types import EmbedInput

if TYPE_CHECKING:
    import PIL.Image
    from torch import Tensor, nn

    from mllm_embed.model_dir import ModelDir

MIN_COSINE = 0.9999
"""Merged against unmerged, both in float32."""
_MIN_EFFECT = 1e-4
"""Least distance (of unit vectors) that an adapter must move one of the inputs."""
_MAX_LOSS = 0.01
"""Most of the adapter's effect that merging may lose: a weak adapter left out would still pass by cosine alone."""
_MAX_READ_ERROR = 1e-4
"""Most that the written files may differ from what was meant to be written (distance of unit vectors)."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was measured; cosines are the smallest over the fixed set.

    Attributes:
        inputs: size of the fixed set.
        merged_cosine: merged against unmerged model, float32 (1.0 where there is no adapter).
        adapter_effect: greatest distance between the base model's and the tuned model's unit vectors, or None.
        rounded_cosine: the shipped files, computed in float32, against the unmerged model: the rounding of the weights.
    """

    inputs: int
    merged_cosine: float
    adapter_effect: float | None
    rounded_cosine: float


def fixed_set() -> list[tuple[EmbedInput, tuple[PIL.Image.Image, ...]]]:
    """Return inputs of every kind: texts, pictures, both, two pictures, a picture amid text."""
    texts = ("a red circle", "How many shapes are left of the star?", "2024-05-17: größer als 3,5 °C — 你好, émoji 🙂")
    a, b, c = (scene.image for scene in scenes(3, seed=17))
    wide = b.resize((b.width * 2, b.height))
    items: list[tuple[str | PIL.Image.Image, ...]] = [*((text,) for text in texts)]
    items += [(a,), (wide,), (c, texts[0]), (a, c), ("before", b, "after")]
    return [(EmbedInput.of(*item), tuple(part for part in item if not isinstance(part, str))) for item in items]


@torch.no_grad()
def vectors(model: nn.Module, model_dir: ModelDir) -> Tensor:
    """Embed the fixed set, one by one, as unit vectors.

    Args:
        model: the LVLM, in evaluation mode.
        model_dir: tokenizer, processors and prompt format.

    Returns:
        float32 [N, D], on the CPU.
    """
    renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
    builder = InputBuilder(model_dir, renderer.image_token_id)
    device = next(model.parameters()).device
    rows = []
    for item, images in fixed_set():
        inputs = builder.build([renderer.render(item, get_task(DEFAULT).query, images)])
        rows.append(encode(model, {name: tensor.to(device) for name, tensor in inputs.items()})[0].float().cpu())
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def check_effect(base: Tensor, tuned: Tensor) -> float:
    """Return the greatest distance between an input's vectors without and with the adapter.

    Raises:
        IncompatibleCheckpoint: the adapter leaves every input where it was.
    """
    effect = float(_distances(base, tuned).max())
    if not effect >= _MIN_EFFECT:
        raise IncompatibleCheckpoint(
            f"the adapter must move an input's vector by at least {_MIN_EFFECT}, but moves none by more than "
            f"{effect:.1e}"
        )
    return effect


def check_merged(base: Tensor, unmerged: Tensor, merged: Tensor) -> float:
    """Return the least cosine between the unmerged and the merged model's vectors.

    Raises:
        IncompatibleCheckpoint: they differ.
    """
    cosines = _cosines(unmerged, merged)
    least = float(cosines.min())
    lost = float(_distances(unmerged, merged).norm() / _distances(unmerged, base).norm())
    if not (least >= MIN_COSINE and lost <= _MAX_LOSS):
        raise IncompatibleCheckpoint(
            f"the merged model must give the unmerged model's vectors (cosine at least {MIN_COSINE}, at most "
            f"{_MAX_LOSS:.0%} of the adapter's effect lost), but {_name(cosines.argmin())} has the cosine {least:.6f} "
            f"and {lost:.0%} is lost"
        )
    return least


def check_written(meant: Tensor, written: Tensor) -> None:
    """Compare the model read back from disk with the one in memory, both with rounded weights.

    Raises:
        IncompatibleCheckpoint: they differ.
    """
    distances = _distances(meant, written)
    if not float(distances.max()) <= _MAX_READ_ERROR:
        raise IncompatibleCheckpoint(
            f"the written model must give the vectors of the model in memory (distance at most {_MAX_READ_ERROR}), "
            f"but {_name(distances.argmax())} differs by {float(distances.max()):.1e}"
        )


def least_cosine(a: Tensor, b: Tensor) -> float:
    """Return the smallest cosine of rows of unit vectors."""
    return float(_cosines(a, b).min())


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).sum(dim=-1)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    distances: Tensor = torch.linalg.vector_norm(a.double() - b.double(), dim=-1)
    return distances


def _name(index: Tensor) -> str:
    """Name an input of the fixed set in a message."""
    kinds = " + ".join(type(content).__name__.lower() for content in fixed_set()[int(index)][0].content)
    return f"probe {int(index)} ({kinds})"
