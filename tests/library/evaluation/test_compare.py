from typing import Any

import pytest

from mllm_embed.evaluation.compare import Difference, compare, comparison_table
from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.query_ranks import QueryRanks

pytestmark = pytest.mark.fast

Hits = dict[str, list[list[int]]]
"""Task -> for each part, the rank of the right candidate of each query."""
META = {"a": "retrieval", "b": "retrieval", "c": "VQA"}


def run(name: str, hits: Hits, checksum: str = "1") -> tuple[dict[str, Any], list[QueryRanks]]:
    report: dict[str, Any] = {
        "suite": "suite",
        "model": {"name": name},
        "settings": {"split_prefix": "test", "limit_pool": None, "dimensions": None},
        "data": {"x.parquet": checksum},
        "results": {
            task: {
                "meta_task": META[task],
                "headline": "test",
                "parts": {str(i): {"sha256": str(len(part))} for i, part in enumerate(parts)},
            }
            for task, parts in hits.items()
        },
    }
    outcomes = [
        QueryRanks(task, str(i), ("test", "test_new"), "", 10, (rank,))
        for task, parts in hits.items()
        for i, part in enumerate(parts)
        for rank in part
    ]
    return report, outcomes


def differences(one: Hits, other: Hits, metric: str = "hit1") -> dict[str, Difference]:
    (left, left_ranks), (right, right_ranks) = run("one", one), run("other", other)
    return {line.name: line for line in compare([left, right], [left_ranks, right_ranks], metric)}


def test_means_weigh_parts_tasks_and_meta_tasks() -> None:
    found = differences(
        {"a": [[1, 2], [2, 2, 2, 2]], "b": [[1, 1]], "c": [[2, 2]]},
        {"a": [[1, 1], [2, 2, 2, 2]], "b": [[1, 2]], "c": [[1, 1]]},
    )
    assert (found["a"].one, found["a"].other, found["a"].queries) == (0.25, 0.5, 6)
    tasks, metas = found["mean over tasks"], found["mean over meta-tasks"]
    assert tasks.other - tasks.one == pytest.approx((0.25 - 0.5 + 1) / 3)
    assert metas.other - metas.one == pytest.approx(((0.25 - 0.5) / 2 + 1) / 2)


def test_a_real_difference_is_told_from_noise() -> None:
    one = {"a": [[1] * 50 + [2] * 150], "b": [[1, 2] * 100]}
    other = {"a": [[1] * 90 + [2] * 110], "b": [[2, 1] * 100]}
    found = differences(one, other)
    assert found["a"].p < 0.001
    assert found["a"].interval[0] > 0
    assert found["b"].p > 0.5
    assert found["b"].interval[0] < 0 < found["b"].interval[1]
    table = comparison_table(run("one", one)[0], run("other", other)[0], list(found.values()), "hit1")
    assert "| a | 200 | 0.250 | 0.450 | +0.200 |" in table
    assert table.count("**") == 2 * sum(line.p < 0.05 for line in found.values()) > 0


def test_any_metric_can_be_compared() -> None:
    found = differences({"a": [[2, 2]]}, {"a": [[4, 4]]}, "mrr")
    assert (found["a"].one, found["a"].other) == (0.5, 0.25)
    with pytest.raises(EvaluationError, match=r"metric must be one of hit1, .* but is 'accuracy'"):
        differences({"a": [[2]]}, {"a": [[2]]}, "accuracy")


def test_runs_without_a_common_task_are_refused() -> None:
    with pytest.raises(EvaluationError, match="no task in common"):
        differences({"a": [[1]]}, {"b": [[1]]})


def test_other_data_are_refused() -> None:
    one, other = run("one", {"a": [[1]]}), run("other", {"a": [[1]]}, checksum="2")
    with pytest.raises(EvaluationError, match=r"different versions of x\.parquet"):
        compare([one[0], other[0]], [one[1], other[1]])
