"""The plan is a fixed function of its seed, goes through rows in epochs, and keeps its beginning when made longer."""

from collections import Counter

import pytest

from mllm_embed_training.plan import MixturePlan

pytestmark = pytest.mark.fast
SIZES = {"a": 7, "b": 5, "c": 3}


def plan(steps: int = 40, seed: int = 3, group_size: int = 4) -> MixturePlan:
    weights = {"a": 2.0, "b": 1.0, "c": 0.0}
    return MixturePlan(SIZES, weights, batch_size=8, group_size=group_size, steps=steps, seed=seed)


def test_equal_arguments_give_equal_batches_in_any_order() -> None:
    one, other = plan(), plan()
    assert [one.draws(step) for step in reversed(range(40))] == [other.draws(step) for step in range(40)][::-1]
    assert [plan(seed=4).draws(step) for step in range(40)] != [other.draws(step) for step in range(40)]


def test_a_longer_plan_begins_with_the_shorter_one() -> None:
    short, long = plan(10), plan(40)
    assert [short.draws(step) for step in range(10)] == [long.draws(step) for step in range(10)]


def test_groups_are_of_one_task_and_weight_zero_is_never_drawn() -> None:
    for step in range(40):
        draws = plan().draws(step)
        assert len(draws) == 8
        assert [len({draw.task for draw in draws[start : start + 4]}) for start in (0, 4)] == [1, 1]
        assert "c" not in {draw.task for draw in draws}


def test_every_row_comes_once_before_any_comes_twice() -> None:
    long = plan()
    rows = [draw.row for step in range(40) for draw in long.draws(step) if draw.task == "a"]
    assert len(rows) > 3 * SIZES["a"]
    for start in range(0, len(rows) - SIZES["a"], SIZES["a"]):
        assert Counter(rows[start : start + SIZES["a"]]) == Counter(range(SIZES["a"]))
    assert rows[: SIZES["a"]] != rows[SIZES["a"] : 2 * SIZES["a"]]


def test_weights_are_followed() -> None:
    tasks = Counter(draw.task for step in range(400) for draw in plan(400).draws(step))
    assert tasks["a"] / tasks["b"] == pytest.approx(2.0, rel=0.2)


def test_every_draw_has_its_own_seed() -> None:
    long = plan()
    seeds = [draw.seed for step in range(40) for draw in long.draws(step)]
    assert len(set(seeds)) == len(seeds)


def test_faults_are_named() -> None:
    with pytest.raises(ValueError, match="group_size must divide batch_size 8, but is 3"):
        plan(group_size=3)
    with pytest.raises(ValueError, match="no rows: a"):
        MixturePlan({"a": 0}, {"a": 1.0}, batch_size=2, group_size=2, steps=1, seed=0)
    with pytest.raises(ValueError, match="positive weight"):
        MixturePlan({"a": 3}, {"a": 0.0}, batch_size=2, group_size=2, steps=1, seed=0)
