import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mllm_embed.evaluation import metrics
from mllm_embed.evaluation.metrics import ndcg, score, truth_ranks
from mllm_embed.vectors import finish

pytestmark = pytest.mark.fast


def unit(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    return finish(np.array(rows, dtype=np.float32))


# Cosines of the query (1, 0) with these: 1.0, 0.8, 0.6, 0.0
CANDIDATES = unit((1, 0), (4, 3), (3, 4), (0, 1))
QUERY = unit((1, 0))


@pytest.mark.parametrize(("truth", "rank"), [(0, 1), (1, 2), (2, 3), (3, 4)])
def test_rank_is_the_place_by_cosine(truth: int, rank: int) -> None:
    assert truth_ranks(QUERY, CANDIDATES, [[truth]])[0].tolist() == [rank]


def test_several_truths_are_ranked_in_ascending_order() -> None:
    assert truth_ranks(QUERY, CANDIDATES, [[3, 1]])[0].tolist() == [2, 4]


def test_ties_count_against_the_model() -> None:
    same = unit((1, 0), (1, 0), (1, 0))
    for truth in range(3):
        assert truth_ranks(QUERY, same, [[truth]])[0].tolist() == [3]


def test_ties_within_float_noise_count_against_the_model() -> None:
    nearly = np.array([[1.0, 0.0], [1.0 - 3e-7, 0.0]], dtype=np.float32)
    assert truth_ranks(QUERY, nearly, [[0]])[0].tolist() == [2]


def test_equal_truths_do_not_push_each_other_down() -> None:
    same = unit((1, 0), (1, 0), (0, 1))
    assert truth_ranks(QUERY, same, [[0, 1]])[0].tolist() == [1, 2]


def test_only_shared_and_own_extra_candidates_are_seen() -> None:
    queries = np.repeat(QUERY, 3, axis=0)
    ranks = truth_ranks(queries, CANDIDATES[::-1], [[0], [0], [0]], shared=2, extras=[[], [2], [3, 2]])
    assert [rank.tolist() for rank in ranks] == [[2], [3], [4]]


def test_an_extra_candidate_may_be_the_truth() -> None:
    assert truth_ranks(QUERY, CANDIDATES, [[3]], shared=1, extras=[[3]])[0].tolist() == [2]


def test_blocks_do_not_change_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, candidates = (rng.standard_normal((n, 8)).astype(np.float32) for n in (23, 57))
    truths = [rng.choice(57, size=1 + i % 3, replace=False).tolist() for i in range(23)]
    extras = [[40 + i] for i in range(17)] + [[]] * 6
    truths = [[place for place in truth if place < 40] or [0] for truth in truths]
    whole = truth_ranks(queries, candidates, truths, shared=40, extras=extras)
    monkeypatch.setattr(metrics, "_QUERY_BLOCK", 5)
    monkeypatch.setattr(metrics, "_CANDIDATE_BLOCK", 7)
    blocked = truth_ranks(queries, candidates, truths, shared=40, extras=extras)
    assert [rank.tolist() for rank in whole] == [rank.tolist() for rank in blocked]


def test_ranks_equal_a_plain_sort() -> None:
    rng = np.random.default_rng(1)
    queries, candidates = (rng.standard_normal((n, 16)).astype(np.float32) for n in (50, 200))
    truths = [[int(place)] for place in rng.integers(0, 200, 50)]
    expected = []
    for query, (truth,) in zip(queries, truths, strict=True):
        order = np.argsort(-(candidates @ query))
        expected.append([int(np.flatnonzero(order == truth)[0]) + 1])
    assert [rank.tolist() for rank in truth_ranks(queries, candidates, truths)] == expected


def test_a_query_without_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="query 1 has none"):
        truth_ranks(np.repeat(QUERY, 2, axis=0), CANDIDATES, [[0], []])


def test_metrics_of_a_first_place() -> None:
    assert score(np.array([1])) == metrics.Scores(hit1=1, hit5=1, ndcg5=1, ndcg10=1, mrr=1)


def test_metrics_of_a_third_place() -> None:
    found = score(np.array([3]))
    assert (found.hit1, found.hit5) == (0, 1)
    assert found.mrr == pytest.approx(1 / 3)
    assert found.ndcg5 == found.ndcg10 == pytest.approx(0.5)  # 1 / log2(4)


def test_metrics_of_a_seventh_place() -> None:
    found = score(np.array([7]))
    assert (found.hit5, found.ndcg5) == (0, 0)
    assert found.ndcg10 == pytest.approx(1 / 3)  # 1 / log2(8)


def test_ndcg_with_two_truths() -> None:
    expected = (1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    assert ndcg(np.array([1, 3]), 5) == pytest.approx(expected)
    assert ndcg(np.array([1, 7]), 5) == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_ndcg_of_more_truths_than_places_can_be_one() -> None:
    assert ndcg(np.arange(1, 8), 5) == pytest.approx(1)
