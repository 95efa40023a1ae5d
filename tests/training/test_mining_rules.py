"""The rules of mining on scores that one can check by hand, and the search against brute force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from mllm_embed.errors import InvalidInput
from mllm_embed_training.mining.rules import Choice, Rules, choose
from mllm_embed_training.mining.search import nearest

pytestmark = pytest.mark.fast

SCORES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""Of corpus rows 10 to 19."""


def chosen(positive: float = 1.0, without: Mapping[int, str] | None = None, seed: int = 0, **rules: Any) -> Choice:
    options = {"per_query": 3, "window": 10, "max_relative": None, "seed": seed} | rules
    return choose(
        np.arange(10, 20),
        np.array(SCORES, dtype=np.float32),
        without=without or {},
        positive=positive,
        rules=Rules(**options),
        rng=np.random.default_rng(seed),
    )


def test_the_best_ranks_become_negatives() -> None:
    found = chosen()
    assert found.rows.tolist() == [10, 11, 12]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_the_window_begins_after_the_skipped_ranks_and_ends_with_its_size() -> None:
    assert chosen(skip=2, window=3).rows.tolist() == [12, 13, 14]
    assert chosen(skip=2, window=4, per_query=4).rows.tolist() == [12, 13, 14, 15]
    assert chosen(skip=8).rows.tolist() == [18, 19], "the corpus ends before the window"


def test_a_limit_does_not_widen_the_window() -> None:
    found = chosen(window=3, max_score=0.75)
    assert found.rows.tolist() == [12]
    assert found.dropped == {"max_score": 2}


def test_what_is_right_already_has_no_rank() -> None:
    found = chosen(without={10: "positive", 12: "query", 19: "own negative"}, skip=1, window=2, per_query=2)
    assert found.rows.tolist() == [13, 14], "row 11 is rank 1"
    assert found.best == (11, float(np.float32(0.8)))
    assert found.excluded == {"positive": 1, "query": 1}, "row 19 lies behind the window's end"


@pytest.mark.parametrize(
    ("positive", "rules", "limit"),
    [
        (0.8, {"max_relative": 0.75}, 0.6),
        (0.8, {"max_relative": 1.0}, 0.8),
        (-0.4, {"max_relative": 0.75}, -0.5),  # as far below as 0.3 is below 0.4
        (0.8, {"margin": 0.3}, 0.5),
        (0.8, {"max_score": 0.4}, 0.4),
    ],
)
def test_a_limit_is_where_the_arithmetic_puts_it(positive: float, rules: dict[str, float], limit: float) -> None:
    (found,) = Rules(**{"max_relative": None, **rules}).limits(positive).values()  # type: ignore[arg-type]
    assert found == pytest.approx(limit)


def test_a_score_at_the_limit_stays_and_one_above_is_dropped() -> None:
    found = chosen(max_score=float(np.float32(0.6)))
    assert found.rows.tolist() == [13, 14, 15]
    assert found.dropped == {"max_score": 3}


def test_a_candidate_is_counted_under_the_first_limit_that_drops_it() -> None:
    found = chosen(positive=1.0, max_relative=0.85, margin=0.35, max_score=0.55)
    assert found.dropped == {"max_relative": 1, "margin": 2, "max_score": 1}
    assert found.rows.tolist() == [14, 15, 16]


def test_095_of_the_positive_is_the_limit_unless_another_is_asked_for() -> None:
    assert Rules().limits(0.8) == {"max_relative": pytest.approx(0.76)}


def test_a_random_choice_stays_in_the_window_best_first_and_hangs_on_the_seed() -> None:
    draws = [chosen(pick="random", skip=1, window=6, max_score=0.75, seed=seed).rows.tolist() for seed in range(20)]
    assert all(len(draw) == 3 and draw == sorted(draw) and set(draw) <= {12, 13, 14, 15, 16} for draw in draws)
    assert {row for draw in draws for row in draw} == {12, 13, 14, 15, 16}
    assert draws == [
        chosen(pick="random", skip=1, window=6, max_score=0.75, seed=seed).rows.tolist() for seed in range(20)
    ]


def test_where_nothing_is_left_there_are_no_negatives() -> None:
    nothing = chosen(without=dict.fromkeys(range(10, 20), "positive"))
    assert nothing.rows.tolist() == []
    assert nothing.best is None
    assert nothing.excluded == {"positive": 10}


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"per_query": 0}, "per-query must be between 1 and the window of 100, but is 0"),
        ({"per_query": 11, "window": 10}, "per-query must be between 1 and the window of 10, but is 11"),
        ({"skip": -1}, "skip must be at least 0, but is -1"),
        ({"max_relative": 0.0}, "max-relative must be a number above 0, but is 0.0"),
        ({"max_relative": float("nan")}, "max-relative must be a number above 0, but is nan"),
        ({"margin": -0.1}, "margin must be between 0 and 2, but is -0.1"),
        ({"max_score": 1.5}, "max-score must be between -1 and 1, but is 1.5"),
    ],
)
def test_impossible_rules_are_refused(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as error:
        Rules(**rules)
    assert str(error.value) == said


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
@pytest.mark.parametrize("depth", [1, 10, 200])
def test_the_search_piece_by_piece_is_brute_force(size: int, depth: int) -> None:
    rng = np.random.default_rng(0)
    queries, corpus = (rng.standard_normal((count, 16), dtype=np.float32) for count in (23, 150))
    pieces = (corpus[start : start + size] for start in range(0, len(corpus), size))
    rows, scores = nearest(queries, pieces, depth)
    products = queries @ corpus.T
    expected = np.argsort(-products, axis=1)[:, :depth]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(products, expected, axis=1), atol=1e-5)


def test_of_equal_scores_the_earlier_row_is_first() -> None:
    corpus = np.tile(np.eye(2, dtype=np.float32), (3, 1))
    rows, _ = nearest(np.array([[1, 0]], dtype=np.float32), [corpus[:3], corpus[3:]], 6)
    assert rows.tolist() == [[0, 2, 4, 1, 3, 5]]
