import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mllm_embed.evaluation.significance import bootstrap_interval, paired_interval, permutation_p

pytestmark = pytest.mark.fast


def hits(right: int, wrong: int) -> NDArray[np.float64]:
    return np.array([1.0] * right + [0.0] * wrong)


def test_bootstrap_interval_holds_the_mean_and_narrows() -> None:
    few, many = (np.tile([0.0, 1.0], n) for n in (20, 2000))
    low, high = bootstrap_interval([few])
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 40), rel=0.15)
    narrow = bootstrap_interval([many])
    assert narrow[1] - narrow[0] < (high - low) / 5


def test_bootstrap_interval_is_reproducible() -> None:
    values = [np.tile([0.0, 0.0, 1.0], 10)]
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_a_paired_interval_sees_what_two_single_ones_hide() -> None:
    rng = np.random.default_rng(0)
    easy = rng.random(400)  # queries differ in difficulty far more than the models do
    one, other = [easy], [easy + 0.01]
    low, high = paired_interval(one, other)
    assert low == pytest.approx(0.01)
    assert high == pytest.approx(0.01)
    alone = bootstrap_interval(one)
    assert alone[1] - alone[0] > 0.05


def test_equal_runs_do_not_differ() -> None:
    values = [hits(30, 70), hits(3, 7)]
    assert paired_interval(values, values) == (0, 0)
    assert permutation_p(values, values) == 1


@pytest.mark.parametrize(("better", "worse"), [(12, 3), (9, 9), (30, 18), (5, 0)])
def test_a_permutation_of_hits_is_a_sign_test(better: int, worse: int) -> None:
    one = np.concatenate([np.zeros(better), np.ones(worse), np.ones(40)])
    other = np.concatenate([np.ones(better), np.zeros(worse), np.ones(40)])
    flips = better + worse
    tail = sum(math.comb(flips, k) for k in range(max(better, worse), flips + 1)) / 2**flips
    expected = min(1.0, 2 * tail)
    assert permutation_p([one], [other], rounds=20_000) == pytest.approx(expected, abs=0.012)


def test_parts_weigh_the_same_whatever_their_size() -> None:
    one, other = [hits(0, 1000), hits(10, 0)], [hits(100, 900), hits(9, 1)]
    low, high = paired_interval(one, other)
    assert low < 0 < high  # plus 0.1 in the large part, minus 0.1 in the small one


def test_significance_is_reproducible() -> None:
    one, other = [hits(30, 70)], [hits(45, 55)]
    assert permutation_p(one, other) == permutation_p(one, other)
    assert paired_interval(one, other) == paired_interval(one, other)


def test_other_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="the same queries"):
        paired_interval([hits(1, 1)], [hits(1, 2)])
