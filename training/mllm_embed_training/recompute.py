"""What the forward pass keeps for the backward pass, and what that computes again; gradients keep their bits."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

Checkpointing = bool | Literal["selective"]
"""False keeps all, True the inputs of each layer, `selective` also what was dear to compute."""

CHEAP = 64
"""Inner numbers of a product up to which it is made again: those of an adapter's rank."""
_PRODUCTS = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1}
"""Matrix products, and which of their arguments is the left factor, [rows, inner numbers]."""
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,  # noqa: SLF001
    torch.ops.aten._scaled_dot_product_flash_attention.default,  # noqa: SLF001
    torch.ops.aten._scaled_dot_product_efficient_attention.default,  # noqa: SLF001
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,  # noqa: SLF001
}


def use_checkpointing(model: Any, kind: Checkpointing) -> None:
    """Make a transformers model keep less of its forward pass while it trains.

    Args:
        model: without an adapter yet, or the model below one.
        kind: what is kept; False leaves the model as it is.
    """
    if not kind:
        return
    # Not the reentrant kind: it would lose the gradient where no input of a layer needs one, as under an adapter.
    options: dict[str, Any] = {"use_reentrant": False}
    if kind == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def _policy(_context: Any, operator: Any, *args: Any, **_kwargs: Any) -> CheckpointPolicy:
    """Keep large products and attention; norms, activations and an adapter's own products cost little."""
    factor = _PRODUCTS.get(operator)
    dear = operator in _ATTENTION if factor is None else args[factor].shape[1] > CHEAP
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE
