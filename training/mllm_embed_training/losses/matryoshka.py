"""Matryoshka: train the leading numbers of a vector to be a good shorter vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec

from torch import Tensor

P = ParamSpec("P")
VectorLoss = Callable[Concatenate[Tensor, Tensor, P], Tensor]
"""A loss of queries [Q, D], candidates [C, D] and whatever else it takes."""


def matryoshka(loss_fn: VectorLoss[P], dims: Sequence[int], weights: Sequence[float] | None = None) -> VectorLoss[P]:
    """Wrap a loss so that it averages over nested widths.

        M(q, c) = sum_k w_k * L(q[:, :d_k], c[:, :d_k]) / sum_k w_k

    The inner loss normalises, so each cut is normalised after cutting, as `mllm_embed.vectors.finish` does when the
    embedder serves that width. Source: Kusupati et al. 2022 (arXiv:2205.13147).

    Args:
        loss_fn: a loss of (queries, candidates, ...) that normalises its inputs, such as `info_nce`.
        dims: the widths d_k, each once; the full width is trained only if it is among them.
        weights: the weights w_k >= 0, as many as `dims`; default all equal. A width of weight 0 is not computed.

    Returns:
        a function with the arguments of `loss_fn` that gives the averaged loss.

    Raises:
        ValueError: no widths, a repeated or non-positive one, or weights that do not fit; from the returned function,
            a width greater than the vectors'.
    """
    shares = _shares(dims, [1.0] * len(dims) if weights is None else weights)

    def averaged(queries: Tensor, candidates: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        widest, available = max(dims), queries.shape[-1]
        if widest > available:
            raise ValueError(f"Matryoshka widths must be at most {available}, the vectors' width, but one is {widest}")
        terms = [w * loss_fn(queries[:, :d], candidates[:, :d], *args, **kwargs) for d, w in shares]
        return sum(terms[1:], start=terms[0])

    return averaged


def _shares(dims: Sequence[int], weights: Sequence[float]) -> list[tuple[int, float]]:
    """Check, and return each width with its share of the average."""
    if not dims or min(dims) < 1 or len(set(dims)) != len(dims):
        raise ValueError(f"Matryoshka widths must be positive, at least one, each once, but are {list(dims)}")
    if len(weights) != len(dims) or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(
            f"Matryoshka weights must be {len(dims)} numbers of at least 0 and not all 0, but are {list(weights)}"
        )
    return [(d, w / sum(weights)) for d, w in zip(dims, weights, strict=True) if w > 0]
