"""An adapted layer in fewer passes over memory than PEFT's: scaling and sum belong to the last product.

PEFT writes numbers of the size of the layer's output four times: W x, B A x, its multiple, and the sum. Here they are
written twice, and once less on the way back. Names, weights and files stay PEFT's.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn


def fuse_lora(model: nn.Module) -> None:
    """Let the plain linear layers of a model's one adapter compute so; layers in 4 bits stay PEFT's.

    Args:
        model: wrapped by PEFT, without DoRA.
    """
    from peft.tuners.lora.layer import Linear

    for module in model.modules():
        if type(module) is Linear:
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return W x + scale * B A x, shape [..., out], in the dtype of W x; without adapter, or merged, PEFT's result."""
    if layer.disable_adapters or layer.merged:
        plain: Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return plain
    (name,) = layer.active_adapters
    down, up = layer.lora_A[name], layer.lora_B[name].weight
    rows = x.flatten(0, -2)
    base = layer.base_layer(rows)
    inner = down(layer.lora_dropout[name](rows.to(down.weight.dtype)))
    adapted = torch.addmm(base, inner.to(base.dtype), up.T.to(base.dtype), alpha=layer.scaling[name])
    return adapted.view(*x.shape[:-1], -1)
