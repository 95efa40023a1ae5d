"""What the forward pass keeps for the backward pass, and what that computes again; gradients keep their bits."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

Checkpointing = bool | Literal["selective"]
"""False keeps all, True the inputs of each layer, `selective` also the products that widen: an MLP's first ones, which
are most of what a layer would have to compute again."""

CHEAP = 64
"""Inner numbers of a product up to which it is made again: those of an adapter's rank."""
_PRODUCTS = {torch.ops.aten.mm.default: 1, torch.ops.aten.addmm.default: 2}
"""Matrix products, and which of their arguments is the right factor, [inner numbers, columns]."""


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
    """Keep products that widen. The last product of a layer narrows, and is never made again: nothing needs it."""
    if operator in _PRODUCTS:
        inner, columns = args[_PRODUCTS[operator]].shape
        if columns > inner > CHEAP:
            return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
