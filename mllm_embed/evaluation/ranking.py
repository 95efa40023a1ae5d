"""Metrics of one ranking, with graded relevance: what trec_eval computes, and nDCG with exponential gains.

A query without any relevant document scores 0 everywhere, as in trec_eval. Ties count against the model: of documents
with one score the less relevant stand first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Ranking:
    """Where the relevant documents of one query stand.

    Attributes:
        ranks: 1-based ranks of the relevant documents that were found, ascending, int64, shape [R].
        gains: their relevance, above 0, float64, shape [R].
        ideal: relevance of all relevant documents, found or not, descending, float64, shape [I], I >= R.
    """

    ranks: NDArray[np.int64]
    gains: NDArray[np.float64]
    ideal: NDArray[np.float64]

    @classmethod
    def of_ranks(cls, ranks: NDArray[np.int64]) -> Ranking:
        """Return the ranking of documents that are all found and all equally relevant, from ascending ranks."""
        ones = np.ones(len(ranks))
        return cls(ranks, ones, ones)

    @classmethod
    def of_scores(
        cls, scores: NDArray[np.floating], relevance: NDArray[np.floating], *, missing: Sequence[float] = ()
    ) -> Ranking:
        """Rank documents by score, ties against the model.

        Args:
            scores: of the documents that were found, shape [N].
            relevance: of the same documents, 0 for what is not relevant, shape [N].
            missing: relevance of relevant documents that were not found.

        Raises:
            ValueError: shapes that differ, or relevance below 0.
        """
        if scores.shape != relevance.shape:
            raise ValueError(f"there must be one relevance per score, but shapes are {scores.shape}, {relevance.shape}")
        if (relevance < 0).any():
            raise ValueError(f"relevance must not be below 0, but the lowest is {relevance.min()}")
        ordered = relevance[np.lexsort((relevance, -scores))].astype(np.float64)
        places = np.flatnonzero(ordered > 0)
        ideal = np.sort(np.concatenate([ordered[places], np.asarray(missing, dtype=np.float64)]))[::-1]
        return cls(places.astype(np.int64) + 1, ordered[places], ideal)


def hit(ranking: Ranking, cut: int) -> float:
    """Return 1 if a relevant document is among the first `cut`, else 0."""
    return float((ranking.ranks <= cut).any())


def recall(ranking: Ranking, cut: int) -> float:
    """Return the share of the relevant documents that is among the first `cut`."""
    return float((ranking.ranks <= cut).sum() / len(ranking.ideal)) if len(ranking.ideal) else 0.0


def precision(ranking: Ranking, cut: int) -> float:
    """Return the share of the first `cut` places that holds a relevant document, empty places included."""
    return float((ranking.ranks <= cut).sum() / cut)


def reciprocal_rank(ranking: Ranking) -> float:
    """Return 1 / rank of the first relevant document."""
    return float(1.0 / ranking.ranks[0]) if len(ranking.ranks) else 0.0


def average_precision(ranking: Ranking, cut: int | None = None) -> float:
    """Return the mean, over all relevant documents, of the precision at the place of each; 0 for those not found.

    Args:
        ranking: of one query.
        cut: only the first so many places count, and so at most as many documents (Baldrati et al. 2023, CIRCO).
    """
    ranks = ranking.ranks if cut is None else ranking.ranks[ranking.ranks <= cut]
    if not len(ranks):
        return 0.0
    return float((np.arange(1, len(ranks) + 1) / ranks).sum() / len(ranking.ideal[:cut]))


def r_precision(ranking: Ranking) -> float:
    """Return the precision at as many places as there are relevant documents."""
    return precision(ranking, len(ranking.ideal)) if len(ranking.ideal) else 0.0


def graded_ndcg(ranking: Ranking, cut: int | None = None, *, exponential: bool = False) -> float:
    """Return nDCG: gains discounted by log2(1 + rank), divided by those of the best order.

    Args:
        ranking: of one query.
        cut: only the first so many places count; None counts all.
        exponential: the gain of relevance r is 2^r - 1 (Burges et al. 2005), not r (Jarvelin and Kekalainen 2002).
    """
    found = ranking.ranks <= cut if cut is not None else np.ones(len(ranking.ranks), dtype=bool)
    ideal = ranking.ideal[:cut]
    if not len(ideal):
        return 0.0
    gains, best = (np.exp2(x) - 1 if exponential else x for x in (ranking.gains[found], ideal))
    reached = (gains / np.log2(1.0 + ranking.ranks[found])).sum()
    return float(reached / (best / np.log2(1.0 + np.arange(1, len(best) + 1))).sum())


@dataclass(frozen=True, slots=True)
class Winoground:
    """Shares of quadruples that are told apart (Thrush et al. 2022).

    Attributes:
        text: each picture prefers its own caption.
        image: each caption prefers its own picture.
        group: both.
    """

    text: float
    image: float
    group: float


def winoground(scores: NDArray[np.floating]) -> Winoground:
    """Score pairs of pictures with pairs of captions that have the same words; a tie is not told apart.

    Args:
        scores: similarity of picture i and caption j of each quadruple, shape [N, 2, 2]; i belongs to j = i.

    Raises:
        ValueError: another shape, or no quadruple.
    """
    if scores.ndim != 3 or scores.shape[1:] != (2, 2) or not len(scores):
        raise ValueError(f"scores must have shape [N, 2, 2] with N of at least 1, but have {scores.shape}")
    own = (scores[:, 0, 0], scores[:, 1, 1])
    text = (own[0] > scores[:, 0, 1]) & (own[1] > scores[:, 1, 0])
    image = (own[0] > scores[:, 1, 0]) & (own[1] > scores[:, 0, 1])
    return Winoground(float(text.mean()), float(image.mean()), float((text & image).mean()))


def spearman(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return Spearman's rank correlation of two values of the same things, equal values sharing their mean rank.

    0 where either is the same for all: a model that returns one constant vector has found nothing.

    Args:
        one: shape [N].
        other: shape [N].
    """
    ranks = [_mean_ranks(values) - (len(values) + 1) / 2 for values in (one, other)]
    spread = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum()) / spread if spread > 0 else 0.0


def _mean_ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[place]
    return ranks


def mean_rank_variance(ranks: NDArray[np.integer]) -> float:
    """Return how differently one thing is ranked when it is asked for in several ways, such as languages.

    The mean, over instances and ways, of (rank - mean rank of the instance) squared (Nie et al. 2024, CCRK).

    Args:
        ranks: shape [instances, ways].
    """
    return float(ranks.var(axis=1).mean())
