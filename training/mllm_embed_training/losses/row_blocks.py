"""Matrices of a batch in blocks of rows, so that the memory of a loss does not grow with the square of the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

BLOCK = 2**16
"""Numbers in a block's matrix, 256 KiB of float32; a batch whose matrix is no larger is one block."""


def blocks_of(rows: int, columns: int) -> list[slice]:
    """Cut the rows of a matrix into blocks of about `BLOCK` numbers, at least one row each."""
    size = max(1, BLOCK // max(1, columns))
    return [slice(first, first + size) for first in range(0, max(1, rows), size)]


def by_rows(part: Callable[[slice], Tensor], rows: int, columns: int) -> list[Tensor]:
    """Apply a function to blocks of the rows of a matrix.

    Where a gradient is wanted, the matrices of a block are made again in the backward pass, not kept until then: they
    are a product of vectors, and cheap beside the model that made these.

    Args:
        part: which rows -> what they give; it draws no random numbers.
        rows: of the whole matrix.
        columns: likewise.

    Returns:
        what the blocks gave, in order.
    """
    blocks = blocks_of(rows, columns)
    if len(blocks) == 1 or not torch.is_grad_enabled():
        return [part(block) for block in blocks]
    return [checkpoint(part, block, use_reentrant=False, preserve_rng_state=False) for block in blocks]


def mean_by_rows(total: Callable[[slice], Tensor], rows: int, columns: int) -> Tensor:
    """Average over the rows of a matrix what a function adds up over some of them; arguments as for `by_rows`."""
    return torch.stack(by_rows(total, rows, columns)).sum() / rows
