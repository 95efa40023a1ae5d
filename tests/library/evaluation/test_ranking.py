"""Metrics against trec_eval (through pytrec_eval) on random rankings with ties, grades and empty relevance."""

from collections.abc import Callable

import numpy as np
import pytest
import pytrec_eval
from numpy.typing import NDArray

from mllm_embed.evaluation import ranking as metrics
from mllm_embed.evaluation.metrics import score
from mllm_embed.evaluation.ranking import Ranking, Winoground, mean_rank_variance, winoground

pytestmark = pytest.mark.fast

CUTS = (1, 5, 10)
QUERIES = 1000
Run = dict[str, dict[str, float]]
Judgements = dict[str, dict[str, int]]


class Draw:
    """One query: some documents are found, with few different scores, so that many tie; some relevant ones are not."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.found = int(rng.integers(1, 30))
        everything = self.found + int(rng.integers(0, 4))
        share = rng.choice([0.0, 0.1, 0.4])
        self.relevance = rng.integers(1, 4, everything) * (rng.random(everything) < share)
        self.scores = rng.integers(0, 6, self.found).astype(np.float64)

    def ranking(self) -> Ranking:
        missing = [float(grade) for grade in self.relevance[self.found :] if grade]
        return Ranking.of_scores(self.scores, self.relevance[: self.found].astype(np.float64), missing=missing)

    def run(self) -> dict[str, float]:
        """Scores in which ties are resolved against the model, as trec_eval must be told."""
        return {f"d{i}": float(s - 0.1 * self.relevance[i]) for i, s in enumerate(self.scores)}


@pytest.fixture(scope="module")
def draws() -> dict[str, Draw]:
    return {f"q{seed}": Draw(seed) for seed in range(QUERIES)}


def reference(draws: dict[str, Draw], measures: set[str], *, exponential: bool = False) -> Run:
    judged: Judgements = {
        name: {f"d{i}": int(2**grade - 1 if exponential else grade) for i, grade in enumerate(draw.relevance)}
        for name, draw in draws.items()
    }
    run: Run = {name: draw.run() for name, draw in draws.items()}
    found: Run = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(run)
    return found


def check(draws: dict[str, Draw], theirs: Run, name: str, ours: Callable[[Ranking], float]) -> None:
    assert len(theirs) == QUERIES
    values = {query: ours(draw.ranking()) for query, draw in draws.items()}
    assert len(set(values.values())) > 1
    for query, value in values.items():
        assert value == pytest.approx(theirs[query][name], abs=1e-9), (name, query)


def test_the_rankings_have_ties_and_empty_relevance(draws: dict[str, Draw]) -> None:
    assert sum(not draw.relevance.any() for draw in draws.values()) > 100
    assert sum(len(set(draw.scores)) < len(draw.scores) for draw in draws.values()) > 800


def test_metrics_are_those_of_trec_eval(draws: dict[str, Draw]) -> None:
    cuts = ",".join(map(str, CUTS))
    names = {f"success.{cuts}", f"recall.{cuts}", f"P.{cuts}", f"ndcg_cut.{cuts}", "ndcg", "map", "recip_rank", "Rprec"}
    theirs = reference(draws, names)
    for cut in CUTS:
        check(draws, theirs, f"success_{cut}", lambda one, cut=cut: metrics.hit(one, cut))  # type: ignore[misc]
        check(draws, theirs, f"recall_{cut}", lambda one, cut=cut: metrics.recall(one, cut))  # type: ignore[misc]
        check(draws, theirs, f"P_{cut}", lambda one, cut=cut: metrics.precision(one, cut))  # type: ignore[misc]
        check(draws, theirs, f"ndcg_cut_{cut}", lambda one, cut=cut: metrics.graded_ndcg(one, cut))  # type: ignore[misc]
    check(draws, theirs, "ndcg", metrics.graded_ndcg)
    check(draws, theirs, "map", metrics.average_precision)
    check(draws, theirs, "recip_rank", metrics.reciprocal_rank)
    check(draws, theirs, "Rprec", metrics.r_precision)


def test_exponential_gains(draws: dict[str, Draw]) -> None:
    theirs = reference(draws, {"ndcg_cut.10", "ndcg"}, exponential=True)
    check(draws, theirs, "ndcg_cut_10", lambda one: metrics.graded_ndcg(one, 10, exponential=True))
    check(draws, theirs, "ndcg", lambda one: metrics.graded_ndcg(one, exponential=True))


def test_the_suites_own_numbers_are_these_metrics() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        ranks = np.sort(rng.choice(np.arange(1, 30), int(rng.integers(1, 4)), replace=False)).astype(np.int64)
        found, one = score(ranks), Ranking.of_ranks(ranks)
        assert (found.hit1, found.hit5) == (metrics.hit(one, 1), metrics.hit(one, 5))
        assert found.mrr == pytest.approx(metrics.reciprocal_rank(one))
        assert found.ndcg5 == pytest.approx(metrics.graded_ndcg(one, 5))
        assert found.ndcg10 == pytest.approx(metrics.graded_ndcg(one, 10))


def test_ties_count_against_the_model() -> None:
    ranking = Ranking.of_scores(np.ones(4), np.array([1.0, 3.0, 0.0, 0.0]))
    assert ranking.ranks.tolist() == [3, 4]
    assert ranking.gains.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("scores", "relevance", "reason"),
    [(np.ones(2), np.ones(3), "one relevance per score"), (np.ones(2), np.array([1.0, -1.0]), "lowest is -1")],
)
def test_wrong_judgements_are_refused(scores: NDArray[np.float64], relevance: NDArray[np.float64], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Ranking.of_scores(scores, relevance)


def test_winoground_counts_what_is_told_apart() -> None:
    scores = np.array(
        [
            [[0.9, 0.1], [0.2, 0.8]],  # all told apart
            [[0.9, 0.8], [0.95, 0.97]],  # pictures prefer their captions; caption 0 prefers picture 1
            [[0.5, 0.6], [0.1, 0.7]],  # captions prefer their pictures; picture 0 prefers caption 1
            [[0.5, 0.5], [0.5, 0.5]],  # ties tell nothing apart
        ]
    )
    assert winoground(scores) == Winoground(text=0.5, image=0.5, group=0.25)


def test_winoground_needs_quadruples() -> None:
    with pytest.raises(ValueError, match=r"but have \(2, 2\)"):
        winoground(np.ones((2, 2)))


def test_mean_rank_variance() -> None:
    assert mean_rank_variance(np.array([[1, 1, 1], [7, 7, 7]])) == 0
    assert mean_rank_variance(np.array([[1, 3], [5, 5]])) == 0.5  # (1 + 1 + 0 + 0) / 4
