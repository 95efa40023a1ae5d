"""Cosines of queries and candidates, and the checks that all losses share.

Letters in this package: Q queries, C candidates (the positives among them), D vector width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cosines(queries: Tensor, candidates: Tensor) -> Tensor:
    """Return the cosine of every query and candidate.

    Normalised and multiplied in float32 whatever the inputs are (float64 stays), autocast or not.

    Args:
        queries: shape [Q, D], of any length.
        candidates: shape [C, D], likewise.

    Returns:
        shape [Q, C].

    Raises:
        ValueError: shapes that do not fit, or no queries.
    """
    check_vectors(queries, candidates)
    with torch.autocast(queries.device.type, enabled=False):
        return unit(queries) @ unit(candidates).T


def unit(vectors: Tensor) -> Tensor:
    """Normalise rows in float32 or better."""
    return functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def own_columns(labels: Tensor, count: int) -> Tensor:
    """Mark each query's positive.

    Args:
        labels: column of each query's positive, int64 [Q].
        count: C.

    Returns:
        bool [Q, C].

    Raises:
        ValueError: a label outside the candidates.
    """
    check_columns(labels, count)
    own = torch.zeros(len(labels), count, dtype=torch.bool, device=labels.device)
    own[torch.arange(len(labels), device=labels.device), labels] = True
    return own


def check_vectors(queries: Tensor, candidates: Tensor) -> None:
    """Raise ValueError unless there are queries, and the widths fit."""
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1] or len(queries) == 0:
        raise ValueError(
            "queries and candidates must have the shapes [Q, D] and [C, D] with Q >= 1, "
            f"but have {list(queries.shape)} and {list(candidates.shape)}"
        )


def check_labels(labels: Tensor, queries: int) -> None:
    """Raise ValueError unless there is one label per query."""
    if labels.shape != (queries,):
        raise ValueError(f"labels must have the shape [{queries}], but it is {list(labels.shape)}")


def check_columns(labels: Tensor, count: int) -> None:
    """Raise ValueError unless every label is one of so many columns."""
    outside = labels[(labels < 0) | (labels >= count)]
    if len(outside):
        raise ValueError(f"labels must be columns between 0 and {count - 1}, but one is {int(outside[0])}")


def check_mask(mask: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a mask is bool and of the cosines' shape."""
    if mask is not None and (mask.shape != shape or mask.dtype != torch.bool):
        raise ValueError(f"mask must be bool {list(shape)}, but is {mask.dtype} {list(mask.shape)}")


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless a setting is positive."""
    if not value > 0:
        raise ValueError(f"{name} must be positive, but is {value}")
