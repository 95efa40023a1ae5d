"""Ranks of the right candidates, and the numbers made of them. Ties always count against the model.

A candidate that scores as high as the truth (within `TIE`, the noise of float32) is ranked before it, so a model that
returns one constant vector is never right by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIE = 1e-6
"""Cosines that differ by less are equal."""
_QUERY_BLOCK = 512
_CANDIDATE_BLOCK = 16384


@dataclass(frozen=True, slots=True)
class Scores:
    """Metrics of one ranking.

    Attributes:
        hit1: 1 if a right candidate is first.
        hit5: 1 if one is among the first five.
        ndcg5: nDCG at 5, binary relevance.
        ndcg10: nDCG at 10, binary relevance.
        mrr: 1 / rank of the first right candidate.
    """

    hit1: float
    hit5: float
    ndcg5: float
    ndcg10: float
    mrr: float


METRICS = tuple(Scores.__slots__)
"""Names of the metrics, in the order of reports; the first is the headline."""


def truth_ranks(
    queries: NDArray[np.float32],
    candidates: NDArray[np.float32],
    truths: Sequence[Sequence[int]],
    *,
    shared: int | None = None,
    extras: Sequence[Sequence[int]] | None = None,
    hidden: Sequence[Sequence[int]] | None = None,
) -> list[NDArray[np.int64]]:
    """Rank the right candidates of each query by dot product, ties against them.

    Memory is bounded: scores are computed in blocks of 512 queries x 16,384 candidates.

    Args:
        queries: unit vectors, float32, shape [Q, D].
        candidates: unit vectors, float32, shape [N, D].
        truths: for each query, positions of its right candidates, at least one.
        shared: only the first so many candidates are seen by all queries; None means all N.
        extras: for each query, positions of further candidates that it sees.
        hidden: for each query, positions of candidates that it does not see.

    Returns:
        for each query, the ascending 1-based ranks of its right candidates.

    Raises:
        ValueError: a query without a right candidate.
    """
    if empty := [place for place, truth in enumerate(truths) if not len(truth)]:
        raise ValueError(f"every query needs a right candidate, but query {empty[0]} has none")
    ranks: list[NDArray[np.int64]] = []
    for start in range(0, len(queries), _QUERY_BLOCK):
        block = slice(start, start + _QUERY_BLOCK)
        seen = None if extras is None else extras[block]
        away = truths[block]  # neither the right ones themselves nor what is hidden stands above a right one
        if hidden is not None:
            away = [(*truth, *unseen) for truth, unseen in zip(away, hidden[block], strict=True)]
        ranks += _block_ranks(queries[block], candidates, truths[block], shared=shared, extras=seen, away=away)
    return ranks


def _block_ranks(
    queries: NDArray[np.float32],
    candidates: NDArray[np.float32],
    truths: Sequence[Sequence[int]],
    *,
    shared: int | None,
    extras: Sequence[Sequence[int]] | None,
    away: Sequence[Sequence[int]],
) -> list[NDArray[np.int64]]:
    own = [
        np.sort(candidates[list(truth)] @ query)[::-1].astype(np.float64)
        for query, truth in zip(queries, truths, strict=True)
    ]
    above = [np.zeros(len(scores), dtype=np.int64) for scores in own]
    limit = len(candidates) if shared is None else shared
    for first in range(0, len(candidates), _CANDIDATE_BLOCK):
        scores = queries @ candidates[first : first + _CANDIDATE_BLOCK].T  # [q, n]
        for row, uncounted in enumerate(away):
            line = scores[row].copy()
            line[max(limit - first, 0) :] = -np.inf
            for place in () if extras is None else extras[row]:
                if first <= place < first + len(line):
                    line[place - first] = scores[row, place - first]
            for place in uncounted:
                if first <= place < first + len(line):
                    line[place - first] = -np.inf
            above[row] += (line[None, :] >= own[row][:, None] - TIE).sum(axis=1)
    return [count + np.arange(1, len(count) + 1) for count in above]


def score(ranks: NDArray[np.int64]) -> Scores:
    """Compute the metrics of one ranking from the ascending 1-based ranks of its right candidates."""
    return Scores(
        hit1=float(ranks[0] <= 1),
        hit5=float(ranks[0] <= 5),
        ndcg5=ndcg(ranks, 5),
        ndcg10=ndcg(ranks, 10),
        mrr=1.0 / float(ranks[0]),
    )


def ndcg(ranks: NDArray[np.int64], cut: int) -> float:
    """Return nDCG at `cut` with binary relevance: the gain at rank r is 1 / log2(1 + r)."""
    found = ranks[ranks <= cut]
    ideal = np.arange(1, min(len(ranks), cut) + 1)
    return float((1.0 / np.log2(1.0 + found)).sum() / (1.0 / np.log2(1.0 + ideal)).sum())
