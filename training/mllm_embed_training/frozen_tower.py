"""A frozen vision tower looks at every picture once a step, although GradCache encodes every chunk twice."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mllm_embed.families import Family
from mllm_embed.modeling.inputs import ModelInputs
from mllm_embed.modeling.loading import inner_model

Chunk = dict[str, Any]
"""`ModelInputs`, or what `looked_at` makes of them."""

SEEN = "mm_encoder_outputs"
"""Transformers' name for what tower and projector made of the pictures, where a model takes that in their place."""
_READ = ("pooler_output", "deepstack_features")
"""What the language model reads of it."""


def can_look_ahead(model: nn.Module, family: Family) -> bool:
    """Whether the model takes what was seen as an input, and trains nothing but its language model."""
    inner = inner_model(model)
    language = family.language_model.removeprefix("model.")
    trained = [name for name, parameter in inner.named_parameters() if parameter.requires_grad]
    return SEEN in inspect.signature(inner.forward).parameters and all(name.startswith(language) for name in trained)


@torch.no_grad()
def looked_at(model: nn.Module, family: Family, chunk: ModelInputs, device: torch.device) -> Chunk:
    """Put what tower and projector make of a chunk's pictures in the place of their pixels.

    The model computes the same from either, so vectors and gradients keep their bits. What was seen waits where the
    pixels were, in the host's memory, and takes less of it.

    Args:
        model: one that `can_look_ahead`.
        family: its family.
        chunk: on the CPU.
        device: the model's.
    """
    if "pixel_values" not in chunk:
        return chunk
    inner: Any = inner_model(model)
    pixels = moved({name: chunk[name] for name in family.pixel_inputs}, device)
    seen = inner.get_image_features(**pixels, return_dict=True)
    kept = moved({name: seen[name] for name in _READ if name in seen}, torch.device("cpu"))
    rest = {name: tensor for name, tensor in chunk.items() if name != "pixel_values"}
    return {**rest, SEEN: {"image": type(seen)(**kept)}}


def moved(chunk: Chunk, device: torch.device) -> Chunk:
    """Return a chunk on another device."""
    there: Chunk = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), chunk)
    return there
