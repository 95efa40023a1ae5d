"""Which of the nearest candidates become negatives: pure functions of scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mllm_embed.errors import InvalidInput

Pick = Literal["top", "random"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """How negatives are chosen for a query whose positive has score p.

    Candidates are ranked by their score; the query itself, its positives and its own negatives have no rank. Of ranks
    skip + 1 to skip + window, those that score above a limit are dropped: they may be right answers that nobody marked.

    Attributes:
        per_query: negatives wanted.
        skip: best ranks left out.
        window: ranks looked at after those.
        max_relative: limit p * max_relative (NV-Retriever, Moreira et al. 2024, who found 0.95 best); for a negative p
            the limit lies as far below p as for -p. None sets no such limit.
        margin: limit p - margin, or None.
        max_score: limit whatever p is, or None.
        pick: the best ones left, or a random choice.
        seed: of the random choice.

    Raises:
        InvalidInput: a value outside its range.
    """

    per_query: int = 8
    skip: int = 0
    window: int = 100
    max_relative: float | None = 0.95
    margin: float | None = None
    max_score: float | None = None
    pick: Pick = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.per_query <= self.window:
            raise InvalidInput(f"per-query must be between 1 and the window of {self.window}, but is {self.per_query}")
        if self.skip < 0:
            raise InvalidInput(f"skip must be at least 0, but is {self.skip}")
        if self.max_relative is not None and not 0 < self.max_relative < np.inf:
            raise InvalidInput(f"max-relative must be a number above 0, but is {self.max_relative}")
        if self.margin is not None and not 0 <= self.margin <= 2:
            raise InvalidInput(f"margin must be between 0 and 2, but is {self.margin}")
        if self.max_score is not None and not -1 <= self.max_score <= 1:
            raise InvalidInput(f"max-score must be between -1 and 1, but is {self.max_score}")

    def limits(self, positive: float) -> dict[str, float]:
        """Return the limits for a positive's score, by rule, in the order in which they are counted."""
        found = {}
        if self.max_relative is not None:
            found["max_relative"] = positive - abs(positive) * (1 - self.max_relative)
        if self.margin is not None:
            found["margin"] = positive - self.margin
        if self.max_score is not None:
            found["max_score"] = self.max_score
        return found


@dataclass(frozen=True, slots=True)
class Choice:
    """What the rules made of one query's candidates.

    Attributes:
        rows: corpus rows of the negatives, best first, at most `per_query`.
        scores: theirs, float32.
        best: corpus row and score of rank 1; None where there is no candidate.
        dropped: candidates of the window that a limit took for false negatives, by rule.
        excluded: hits up to the window's end that have no rank, by reason.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    best: tuple[int, float] | None
    dropped: Mapping[str, int]
    excluded: Mapping[str, int]


def choose(
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    *,
    without: Mapping[int, str],
    positive: float,
    rules: Rules,
    rng: np.random.Generator,
) -> Choice:
    """Choose negatives among a query's hits.

    Args:
        rows: corpus rows, best first, int64, shape [K].
        scores: their cosines, falling, float32, shape [K].
        without: corpus rows that must not be negatives, with the reason.
        positive: the score that limits refer to.
        rules: the rules.
        rng: draws where `rules.pick` is random.
    """
    ranked = np.flatnonzero(~np.isin(rows, list(without)))
    window = ranked[rules.skip : rules.skip + rules.window]
    end = window[-1] + 1 if len(window) else len(rows)
    excluded = Counter(without[row] for row in rows[:end].tolist() if row in without)
    dropped: dict[str, int] = {}
    left = window
    for rule, limit in rules.limits(positive).items():
        below = left[scores[left] <= limit]
        dropped[rule] = len(left) - len(below)
        left = below
    if rules.pick == "random" and len(left) > rules.per_query:
        left = np.sort(rng.choice(left, rules.per_query, replace=False))
    left = left[: rules.per_query]
    best = (int(rows[ranked[0]]), float(scores[ranked[0]])) if len(ranked) else None
    return Choice(rows[left], scores[left], best, dropped, excluded)
