"""Terms about where vectors lie on the sphere: alignment, uniformity, and mixing between the modalities."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from mllm_embed_training.losses.cosines import check_labels, check_positive, cosines, unit
from mllm_embed_training.losses.row_blocks import by_rows, mean_by_rows


def alignment(queries: Tensor, candidates: Tensor, labels: Tensor, *, power: float = 2.0) -> Tensor:
    """Mean distance of a query and its positive: mean_i ||q_i - c_{y_i}||^power, of unit vectors.

    Source: Wang and Isola 2020 (arXiv:2005.10242), with power 2.

    Args:
        queries: shape [Q, D].
        candidates: shape [C, D].
        labels: column of each query's positive, int64 [Q].
        power: positive.
    """
    check_labels(labels, len(queries))
    check_positive("power", power)
    squared = (unit(queries) - unit(candidates)[labels]).square().sum(dim=1)
    return squared.clamp_min(1e-12).pow(power / 2).mean() if power != 2 else squared.mean()


def uniformity(vectors: Tensor, *, t: float = 2.0) -> Tensor:
    """How far vectors are from spread out evenly: log mean_{i != j} exp(-t ||v_i - v_j||^2), of unit vectors.

    Source: Wang and Isola 2020 (arXiv:2005.10242), with t = 2.

    Args:
        vectors: shape [N, D], N >= 2.
        t: positive.

    Returns:
        a scalar of at most 0; lower is more even.

    Raises:
        ValueError: fewer than two vectors.
    """
    check_positive("t", t)
    if len(vectors) < 2:
        raise ValueError(f"uniformity needs at least 2 vectors, but got {len(vectors)}")
    numbers = torch.arange(len(vectors), device=vectors.device)

    def log_sum(rows: slice) -> Tensor:
        closeness = -t * (2 - 2 * cosines(vectors[rows], vectors))
        return closeness.masked_fill(numbers[rows, None] == numbers, -torch.inf).flatten().logsumexp(dim=0)

    logs = torch.stack(by_rows(log_sum, len(vectors), len(vectors)))
    return logs.logsumexp(dim=0) - math.log(len(vectors) * (len(vectors) - 1))


def slerp(first: Tensor, second: Tensor, share: float | Tensor) -> Tensor:
    """Go along the great circle from `second` (share 0) to `first` (share 1).

        m = first sin(share * a) / sin(a) + second sin((1 - share) * a) / sin(a),   a the angle between them

    Args:
        first: shape [N, D].
        second: shape [N, D].
        share: a number in [0, 1], or one per row [N, 1].

    Returns:
        unit vectors, shape [N, D].
    """
    first, second = unit(first), unit(second)
    cosine = (first * second).sum(dim=1, keepdim=True).clamp(-1 + 1e-6, 1 - 1e-6)
    angle = torch.arccos(cosine)
    mixed = (first * torch.sin(share * angle) + second * torch.sin((1 - share) * angle)) / torch.sin(angle)
    return functional.normalize(mixed, dim=1)


def geodesic_mixup(
    queries: Tensor, candidates: Tensor, labels: Tensor, *, share: float | Tensor = 0.5, temperature: float = 0.02
) -> Tensor:
    """Contrast each query with its positive against points between the other queries and their positives.

        L = mean_i -log( exp(s_{i,y_i} / t) / (exp(s_{i,y_i} / t) + sum_{j != i} exp(cos(q_i, m_j) / t)) )

    with m_j on the great circle between q_j and c_{y_j}. Such points fill the gap between the modalities, so they are
    harder negatives than either end. Averaged with the same from the positives' side.

    Source: Oh et al. 2023 (arXiv:2203.03897), m2-Mix.

    Args:
        queries: shape [Q, D].
        candidates: shape [C, D].
        labels: column of each query's positive, int64 [Q].
        share: of the query in each mixed point, a number or [Q, 1]; the paper draws it from a Beta distribution.
        temperature: divides the cosines.
    """
    check_labels(labels, len(queries))
    check_positive("temperature", temperature)
    positives = candidates[labels]
    mixed = slerp(queries, positives, share)
    numbers = torch.arange(len(labels), device=labels.device)
    right = (unit(queries) * unit(positives)).sum(dim=1, keepdim=True)  # [Q, 1]

    def total(rows: slice) -> Tensor:
        own = numbers[rows, None] == numbers
        sides = [torch.where(own, right[rows], cosines(side[rows], mixed)) for side in (queries, positives)]
        both = [functional.cross_entropy(side / temperature, numbers[rows], reduction="sum") for side in sides]
        return (both[0] + both[1]) / 2

    return mean_by_rows(total, len(labels), len(labels))
