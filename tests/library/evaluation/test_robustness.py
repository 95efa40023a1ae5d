import pytest

from mllm_embed.evaluation.eval_types import CLEAN, ROBUSTNESS
from mllm_embed.evaluation.query_ranks import QueryRanks
from mllm_embed.evaluation.robustness import drop
from mllm_embed.evaluation.runner import overall

pytestmark = pytest.mark.fast


def asked(part: str, kind: str, *ranks: int) -> list[QueryRanks]:
    return [QueryRanks("task", part, (kind,), str(place), 9, (rank,)) for place, rank in enumerate(ranks)]


OUTCOMES = [
    *asked("blur", CLEAN, 1, 1, 1, 2),
    *asked("blur", "test", 1, 3, 1, 1),
    *asked("noise", CLEAN, 1, 1, 1, 2),
    *asked("noise", "test", 9, 9, 9, 9),
]


def test_a_drop_is_clean_minus_perturbed_by_part_and_on_average() -> None:
    found = drop(OUTCOMES, "test")
    assert {key: found[key] for key in ("clean", "perturbed", "drop")} == {
        "clean": 0.75,
        "perturbed": 0.375,
        "drop": 0.375,
    }
    assert {name: (part["perturbed"], part["drop"]) for name, part in found["parts"].items()} == {
        "blur": (0.75, 0.0),
        "noise": (0.0, 0.75),
    }


def test_the_interval_is_of_pairs() -> None:
    """Equal queries that all fail or all stand leave no doubt about the difference, however hits are spread."""
    same = [*asked("case", CLEAN, 1, 2, 1, 2), *asked("case", "test", 1, 2, 1, 2)]
    assert drop(same, "test")["interval"] == [0, 0]
    low, high = drop(OUTCOMES, "test")["parts"]["blur"]["interval"]
    assert low < 0 < high  # one query was lost and another won


def test_a_task_without_clean_queries_has_no_drop() -> None:
    assert drop(asked("all", "test", 1, 2), "test") == {}


def test_robustness_counts_in_no_mean() -> None:
    slices = {"test": {"hit1": 1.0}}
    one = {"meta_task": "retrieval", "hit1": 0.5, "slices": slices}
    robust = {"meta_task": ROBUSTNESS, "hit1": 0.25, "slices": slices}
    means = overall({"one": one, "robust": robust})
    assert (means["tasks"], means["mean_over_tasks"], means["meta_tasks"]) == (1, 0.5, {"retrieval": 0.5})
    alone = overall({"robust": robust})
    assert (alone["tasks"], alone["mean_over_tasks"], alone["mean_over_meta_tasks"]) == (0, None, None)
