"""Two runs on the same queries: which differences are more than chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllm_embed.evaluation.eval_types import ROBUSTNESS, EvaluationError
from mllm_embed.evaluation.query_ranks import ALL_METRICS, QueryRanks
from mllm_embed.evaluation.report import Report, check_comparable, model_name
from mllm_embed.evaluation.significance import paired_interval, permutation_p
from mllm_embed.evaluation.task_scores import SPEARMAN, task_metric

METRICS = ALL_METRICS[1:]
"""What can be compared; chance is the same for both."""
LEVEL = 0.05
"""p-values below it are printed in bold."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One line of a comparison.

    Attributes:
        name: a task, or a mean.
        queries: number of queries that it rests on.
        one: the first run's value.
        other: the second run's.
        interval: 95 % paired bootstrap interval of `other - one`.
        p: two-sided p-value of a paired permutation test.
    """

    name: str
    queries: int
    one: float
    other: float
    interval: tuple[float, float]
    p: float


@dataclass(frozen=True, slots=True)
class _Side:
    """Values of both runs with the weight of each part in what is compared."""

    one: list[NDArray[np.float64]]
    other: list[NDArray[np.float64]]
    weights: list[float]

    def difference(self, name: str) -> Difference:
        return Difference(
            name,
            sum(map(len, self.one)),
            self._mean(self.one),
            self._mean(self.other),
            paired_interval(self.one, self.other, weights=self.weights),
            permutation_p(self.one, self.other, weights=self.weights),
        )

    def _mean(self, parts: list[NDArray[np.float64]]) -> float:
        return float(np.average([part.mean() for part in parts], weights=self.weights))


def compare(reports: Sequence[Report], ranks: Sequence[Sequence[QueryRanks]], metric: str = "hit1") -> list[Difference]:
    """Compare two runs, task by task, and their means over the tasks that both did.

    Args:
        reports: of the two runs.
        ranks: their queries' outcomes, in the same order.
        metric: one of `METRICS`.

    Raises:
        EvaluationError: an unknown metric, no task in common, or runs on other data, pools or queries.
    """
    if metric not in METRICS:
        raise EvaluationError(f"metric must be one of {', '.join(METRICS)}, but is {metric!r}")
    one, other = reports
    check_comparable(one, other)
    # A rank correlation is of all queries together, so no query has a value that two runs could be compared by.
    ranked = [name for name, result in one["results"].items() if task_metric(result) != SPEARMAN]
    names = [name for name in ranked if name in other["results"]]
    if not names:
        raise EvaluationError(f"{model_name(one)} and {model_name(other)} have no task in common that ranks candidates")
    values = [_by_task(one, outcomes, metric) for outcomes in ranks]
    sides = {name: _Side(values[0][name], values[1][name], [1.0] * len(values[0][name])) for name in names}
    metas = {name: str(one["results"][name]["meta_task"]) for name in names}
    counted = [name for name in names if metas[name] != ROBUSTNESS]
    lines = [side.difference(name) for name, side in sides.items()]
    if not counted:
        return lines
    members = [metas[name] for name in counted]
    over_tasks = _mean([(sides[name], 1.0) for name in counted])
    over_metas = _mean([(sides[name], 1.0 / members.count(metas[name])) for name in counted])
    return [
        *lines,
        over_tasks.difference("mean over tasks"),
        over_metas.difference("mean over meta-tasks"),
    ]


def comparison_table(one: Report, other: Report, differences: Sequence[Difference], metric: str) -> str:
    """Return a Markdown table of a comparison."""
    left, right = model_name(one), model_name(other)
    lines = [
        f"{metric}: {right} minus {left} on the same queries, with the paired 95 % bootstrap interval and the p-value",
        f"of a paired permutation test; below {LEVEL} in bold. Of twenty lines, one is below it by chance alone.",
        "",
        f"| task | queries | {left} | {right} | difference | interval | p |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for line in differences:
        low, high = line.interval
        change = f"{line.other - line.one:+.3f}"
        p = f"{line.p:.4f}" if line.p >= LEVEL else f"**{line.p:.4f}**"
        lines.append(
            f"| {line.name} | {line.queries:,} | {line.one:.3f} | {line.other:.3f} | {change} | "
            f"{low:+.3f} to {high:+.3f} | {p} |"
        )
    return "\n".join(lines) + "\n"


def _mean(weighted: Sequence[tuple[_Side, float]]) -> _Side:
    """A mean over tasks, each of which is the plain mean of its parts."""
    return _Side(
        [part for side, _ in weighted for part in side.one],
        [part for side, _ in weighted for part in side.other],
        [weight / len(side.one) for side, weight in weighted for _ in side.one],
    )


def _by_task(report: Report, outcomes: Sequence[QueryRanks], metric: str) -> dict[str, list[NDArray[np.float64]]]:
    """Values of the headline queries, by task and part."""
    column = ALL_METRICS.index(metric)
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in outcomes:
        if one.task in report["results"] and report["results"][one.task]["headline"] in one.slices:
            values[one.task][one.part].append(one.values()[column])
    return {task: [np.array(part) for part in parts.values()] for task, parts in values.items()}
