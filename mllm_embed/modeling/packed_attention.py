"""Attention of the vision tower over all pictures of a batch at once, without flash-attn.

Transformers packs the patches of all pictures into one sequence. Its flash kernels take such a sequence whole; for
every other kernel it loops over the pictures, in every layer: for small pictures the loop costs more than the
arithmetic. This kernel stacks the pictures of equal length into one dense batch, which gives the same numbers.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Dense = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Queries, keys and values [N, L, D] of N pictures and heads, scale of the scores -> [N, L, D]."""


def use_packed_attention(model: nn.Module, kernel: str) -> None:
    """Let the vision tower of a transformers model attend packed; nothing else of the model changes.

    Args:
        model: loaded with `kernel`; models whose tower takes no packed pictures are left as they are.
        kernel: `sdpa` or `eager`; the flash kernels pack by themselves.
    """
    from transformers import AttentionInterface

    if kernel not in _KERNELS:
        return
    name = f"{kernel}_packed_flash"  # transformers hands packed input to kernels whose name contains `flash`
    AttentionInterface.register(name, partial(packed_attention, dense=_KERNELS[kernel]))
    for module in model.modules():
        if "cu_seqlens" in inspect.signature(module.forward).parameters and hasattr(module, "config"):
            config: Any = module.config
            config._attn_implementation = name  # noqa: SLF001  # the public setter would look for flash-attn


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    cu_seq_lens_q: Tensor,
    dense: Dense,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each picture, in both directions.

    Args:
        module: unused, as are further keyword arguments: part of transformers' signature. Towers have no dropout.
        query: packed patches, shape [1, H, T, D].
        key: likewise.
        value: likewise.
        attention_mask: always None, since `cu_seq_lens_q` bounds the pictures.
        scaling: of the scores.
        cu_seq_lens_q: where each picture begins, and T; int, shape [pictures + 1].
        dense: attends within a batch of pictures of one length.

    Returns:
        shape [1, T, H, D], and None in place of the weights.
    """
    del module, attention_mask

    def attend(q: Tensor, k: Tensor, v: Tensor, length: int) -> Tensor:
        """Packed pictures of one length [1, H, n * length, D] -> [n * length, H, D]."""
        heads, width = q.shape[1], q.shape[3]
        q, k, v = (tensor.reshape(-1, length, width) for tensor in (q, k, v))  # [H * n, length, D]
        return dense(q, k, v, scaling).view(heads, -1, width).transpose(0, 1)

    lengths: list[int] = cu_seq_lens_q.diff().tolist()
    if len(set(lengths)) == 1:
        return attend(query, key, value, lengths[0]).unsqueeze(0), None
    starts: dict[int, list[int]] = defaultdict(list)
    for start, length in zip(cu_seq_lens_q.tolist(), lengths, strict=False):
        starts[length].append(start)
    output = torch.empty_like(query[0].transpose(0, 1))  # [T, H, D]
    for length, begins in starts.items():
        where = (torch.tensor(begins)[:, None] + torch.arange(length)).flatten().to(query.device)
        q, k, v = (tensor.index_select(2, where) for tensor in (query, key, value))
        output = output.index_copy(0, where, attend(q, k, v, length))
    return output.unsqueeze(0), None


def _fused(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """PyTorch's fused kernel: memory does not grow with the square of the length."""
    q, k, v = (tensor.unsqueeze(0) for tensor in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, scale=scaling).squeeze(0)


def _plain(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """The formula, softmax in float32: quicker to train on a CPU while pictures have a few dozen patches."""
    scores = torch.bmm(query * scaling, key.transpose(1, 2))
    return torch.bmm(scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype), value)


_KERNELS: dict[str, Dense] = {"sdpa": _fused, "eager": _plain}
