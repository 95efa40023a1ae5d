"""How sure a number is: bootstrap intervals, and paired tests between two runs on the same queries.

Values come by part: a task's score is the mean over its parts of the mean over queries, and so are these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Values = Sequence[NDArray[np.float64]]
"""One value per query for each part, none of them empty."""


def bootstrap_interval(
    parts: Values, *, weights: Sequence[float] | None = None, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over parts of the mean over queries.

    Args:
        parts: one value per query for each part, none of them empty.
        weights: of the parts; None weighs them equally.
        rounds: number of resamples.
        seed: of the resampling.
    """
    weights = weights or [1.0] * len(parts)
    rng = np.random.default_rng(seed)
    means = np.zeros(rounds)
    for weight, values in zip(weights, parts, strict=True):
        drawn = np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(rounds)])
        means += weight * drawn
    low, high = np.percentile(means / sum(weights), [2.5, 97.5])
    return float(low), float(high)


def resampled_interval(
    parts: Values, statistic: Callable[[NDArray[np.float64]], float], *, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over parts of a statistic that is no mean over queries.

    Args:
        parts: what the statistic is computed from, a row per query for each part.
        statistic: of the rows of one part.
        rounds: number of resamples.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        [statistic(rows[rng.integers(0, len(rows), len(rows))]) for _ in range(rounds)] for rows in parts
    ]  # [parts, rounds]
    low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return float(low), float(high)


def paired_interval(
    one: Values, other: Values, *, weights: Sequence[float] | None = None, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of `other` minus `one`, resampling queries that both have answered.

    Raises:
        ValueError: parts or queries that do not match.
    """
    return bootstrap_interval(_differences(one, other), weights=weights, rounds=rounds, seed=seed)


def permutation_p(
    one: Values, other: Values, *, weights: Sequence[float] | None = None, rounds: int = 10_000, seed: int = 0
) -> float:
    """Return the two-sided p-value of a paired permutation test: how often chance alone differs as much.

    Under the null hypothesis the two runs' values of a query can be exchanged, which flips the sign of its difference.

    Args:
        one: values of one run.
        other: values of the other, for the same queries in the same order.
        weights: of the parts; None weighs them equally.
        rounds: number of random exchanges.
        seed: of the exchanges.

    Returns:
        (1 + exchanges that differ at least as much) / (1 + rounds); never 0.

    Raises:
        ValueError: parts or queries that do not match.
    """
    weights = weights or [1.0] * len(one)
    differences = _differences(one, other)
    parts = [weight * v[v != 0] / len(v) for weight, v in zip(weights, differences, strict=True)]
    observed = abs(sum(float(values.sum()) for values in parts))
    rng = np.random.default_rng(seed)
    sums = np.zeros(rounds)
    for values in parts:
        for start in range(0, rounds, 500):  # bounded memory: 500 rounds at once
            signs = rng.integers(0, 2, (min(500, rounds - start), len(values)), dtype=np.int8) * 2 - 1
            sums[start : start + len(signs)] += signs @ values
    return float((1 + (np.abs(sums) >= observed - 1e-12).sum()) / (1 + rounds))


def _differences(one: Values, other: Values) -> list[NDArray[np.float64]]:
    if [len(part) for part in one] != [len(part) for part in other]:
        raise ValueError("a paired test needs the same queries in the same parts")
    return [right - left for left, right in zip(one, other, strict=True)]
