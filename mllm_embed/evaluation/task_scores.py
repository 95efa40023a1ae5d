"""A task's score by the metrics that its makers report, with the interval of the first of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.evaluation.query_ranks import ALL_METRICS, QueryRanks
from mllm_embed.evaluation.ranking import Ranking, average_precision, graded_ndcg, hit, recall, spearman
from mllm_embed.evaluation.significance import bootstrap_interval, resampled_interval

DIGITS = 6
HIT1 = "hit1"
SPEARMAN = "spearman"
"""The one metric that is of all queries together, not the mean over them."""
_AT: dict[str, Callable[[Ranking, int], float]] = {
    "hit": hit,
    "recall": recall,
    "ndcg": graded_ndcg,
    "map": average_precision,
}
"""Metrics at a cut, named as in `hit1` or `map25`."""


def metric(name: str) -> Callable[[Ranking], float]:
    """Return a metric of one ranking by its name and cut, such as `recall50`.

    Raises:
        ValueError: there is no such metric.
    """
    match = re.fullmatch(r"([a-z]+)([1-9]\d*)", name)
    if match is None or match[1] not in _AT:
        raise ValueError(f"a metric must be one of {', '.join(_AT)} and a cut, such as hit1, but is {name!r}")
    return lambda ranking: _AT[match[1]](ranking, int(match[2]))


def task_scores(metrics: Sequence[str], parts: Sequence[Sequence[QueryRanks]]) -> dict[str, Any]:
    """Score a task.

    Args:
        metrics: names that `metric` knows, or `spearman`; the first is the task's score.
        parts: outcomes of the headline queries of each part that has some.

    Returns:
        JSON values: `metric`, its 95 % bootstrap `interval`, and `scores`, means over parts by metric.
    """
    scores = {name: mean([_score(name, part) for part in parts]) for name in metrics}
    if metrics[0] == SPEARMAN:
        interval = resampled_interval([_pairs(part) for part in parts], _rank_correlation)
    else:
        interval = bootstrap_interval([_values(metrics[0], part) for part in parts])
    return {"metric": metrics[0], "scores": scores, "interval": [round(bound, DIGITS) for bound in interval]}


def own_score(name: str, outcomes: Sequence[QueryRanks]) -> dict[str, float]:
    """Return the score of some queries by name, if it is not among what is computed for all queries anyway."""
    return {} if name in ALL_METRICS else {name: _score(name, outcomes)}


def task_metric(result: Mapping[str, Any]) -> str:
    """Return the metric of a task in a report; reports that name none are of Hit@1."""
    return str(result.get("metric", HIT1))


def task_score(result: Mapping[str, Any]) -> float:
    """Return the score of a task in a report, by its own metric."""
    return float(result["hit1"] if task_metric(result) == HIT1 else result["scores"][result["metric"]])


def more_means(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means beside those over all tasks, each only where there is something to say.

    Returns:
        JSON values: `groups` (tasks and mean of each), and `scores`, means of the metrics that all tasks report where
        these are several.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for result in results:
        if "group" in result:
            groups[result["group"]].append(task_score(result))
    names = results[0].get("scores", {}) if results else {}
    shared = [name for name in names if all(name in result.get("scores", {}) for result in results)]
    found: dict[str, Any] = {}
    if groups:
        found["groups"] = {name: {"tasks": len(own), "mean": mean(own)} for name, own in groups.items()}
    if len(shared) > 1:
        found["scores"] = {name: mean([result["scores"][name] for result in results]) for name in shared}
    return found


def mean(values: Sequence[float]) -> float:
    """Return the plain mean, as reports write it."""
    return round(sum(values) / len(values), DIGITS)


def _score(name: str, part: Sequence[QueryRanks]) -> float:
    if name == SPEARMAN:
        return round(_rank_correlation(_pairs(part)), DIGITS)
    return round(float(_values(name, part).mean()), DIGITS)


def _values(name: str, part: Sequence[QueryRanks]) -> NDArray[np.float64]:
    value = metric(name)
    return np.array([value(one.ranking()) for one in part])


def _pairs(part: Sequence[QueryRanks]) -> NDArray[np.float64]:
    """What people and what the model say, shape [Q, 2]."""
    return np.array([(one.likeness, one.cosine) for one in part], dtype=np.float64)


def _rank_correlation(pairs: NDArray[np.float64]) -> float:
    return spearman(pairs[:, 0], pairs[:, 1])
