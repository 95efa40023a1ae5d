"""Retrieval metrics are those of VLM2Vec's `RankingMetrics`, apart from ties and queries without an answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mllm_embed.evaluation.metrics import score, truth_ranks
from mllm_embed.evaluation.ranking import Ranking, average_precision, graded_ndcg, precision, recall
from tests.training.parity.conftest import Golden

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("metric", ["hit1", "hit5", "ndcg5", "ndcg10", "mrr"])
def test_every_query_gets_their_value(golden: Golden, metric: str) -> None:
    truths = [[place for place in row if place >= 0] for row in golden["metrics/truths"].tolist()]
    assert {len(truth) for truth in truths} == {1, 2, 3}
    ranks = truth_ranks(golden.arrays["metrics/queries"], golden.arrays["metrics/candidates"], truths)
    ours = np.array([getattr(score(found), metric) for found in ranks])
    theirs = golden.arrays[f"metrics/{metric}"]
    assert 0 < theirs.mean() < 1
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def rankings(golden: Golden, *, graded: bool) -> list[Ranking]:
    """The stored queries' rankings; graded, the first right candidate has gain 1, the second 2, the third 3."""
    scores = golden.arrays["metrics/queries"] @ golden.arrays["metrics/candidates"].T
    found = []
    for row, truth in zip(scores, golden["metrics/truths"].tolist(), strict=True):
        relevance = np.zeros(len(row))
        for gain, place in enumerate((place for place in truth if place >= 0), start=1):
            relevance[place] = gain if graded else 1
        found.append(Ranking.of_scores(row, relevance))
    return found


@pytest.mark.parametrize(
    ("name", "metric", "graded"),
    [
        ("recall10", lambda ranking: recall(ranking, 10), False),
        ("precision5", lambda ranking: precision(ranking, 5), False),
        ("average precision", average_precision, False),
        ("graded linear ndcg10", lambda ranking: graded_ndcg(ranking, 10), True),
        ("graded exponential ndcg10", lambda ranking: graded_ndcg(ranking, 10, exponential=True), True),
    ],
)
def test_metrics_of_several_and_graded_answers_are_theirs(
    golden: Golden, name: str, metric: Callable[[Ranking], float], graded: bool
) -> None:
    ours = np.array([metric(ranking) for ranking in rankings(golden, graded=graded)])
    theirs = golden.arrays[f"metrics/{name}"]
    assert 0 < theirs.mean() < 1
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_deviation_equal_scores_are_no_hit(golden: Golden) -> None:
    """Theirs sorts: a model that gives one vector to everything is right wherever the truth is listed first."""
    assert float(golden["metrics/hit1 of equals"]) == 1
    same = np.ones((5, 1), dtype=np.float32)
    assert score(truth_ranks(same[:1], same, [[0]])[0]).hit1 == 0


def test_deviation_a_query_without_an_answer_is_refused(golden: Golden) -> None:
    """Theirs counts it as fully recalled."""
    assert float(golden["metrics/recall without truths"]) == 1
    one = np.ones((1, 1), dtype=np.float32)
    with pytest.raises(ValueError, match="query 0 has none"):
        truth_ranks(one, one, [[]])
