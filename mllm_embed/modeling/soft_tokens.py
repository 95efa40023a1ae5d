"""Vectors in place of token embeddings, in any family: put where the model looks up its tokens, by a hook."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mllm_embed.modeling.loading import inner_model
from mllm_embed.types import SOFT_ID, RenderedPrompt

SOFT_MASK, SOFT_VECTORS = "soft_mask", "soft_vectors"
"""Present where a batch holds soft tokens: where they stand, bool [B, S], and what they are, [soft tokens, D]."""


def set_apart(inputs: dict[str, Tensor], prompts: Sequence[RenderedPrompt]) -> dict[str, Tensor]:
    """Return inputs whose soft tokens, if any, are ids of an ordinary token, and beside them mask and vectors."""
    soft = [torch.from_numpy(prompt.soft) for prompt in prompts if prompt.soft is not None]
    if not soft:
        return inputs
    mask = inputs["input_ids"] == SOFT_ID
    ids = inputs["input_ids"].masked_fill(mask, 0)  # as padding has it; what is looked up for it gives way
    return {**inputs, "input_ids": ids, SOFT_MASK: mask, SOFT_VECTORS: torch.cat(soft)}


@contextlib.contextmanager
def placed(model: nn.Module, inputs: dict[str, Tensor]) -> Iterator[None]:
    """Let a model find the soft tokens of a batch where it looks up the embeddings of its tokens.

    Args:
        model: an LVLM, wrapped by PEFT or not.
        inputs: a batch from `InputBuilder.build`, on the model's device.
    """
    if SOFT_MASK not in inputs:
        yield
        return
    mask, vectors = inputs[SOFT_MASK], inputs[SOFT_VECTORS]

    def place(_module: nn.Module, _arguments: object, embedded: Tensor) -> Tensor:
        return embedded.masked_scatter(mask[..., None], vectors.to(embedded))

    inner: Any = inner_model(model)
    hook = inner.get_input_embeddings().register_forward_hook(place)
    try:
        yield
    finally:
        hook.remove()
