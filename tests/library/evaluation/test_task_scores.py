"""Scores by the metrics of a task's makers: cuts, graded relevance, hidden candidates, likeness, means of groups."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mllm_embed.evaluation.eval_types import EvalTask, Part, Query, item_key
from mllm_embed.evaluation.query_ranks import QueryRanks, part_digest, read_ranks, write_ranks
from mllm_embed.evaluation.ranking import Ranking, average_precision, spearman
from mllm_embed.evaluation.runner import embed_all, overall, rank_tasks, score_tasks
from mllm_embed.evaluation.scores_page import markdown
from mllm_embed.evaluation.task_scores import metric, task_score
from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed.types import EmbedInput, Text

pytestmark = pytest.mark.fast

ASKED = EmbedInput.of("asked")
COSINES = {"asked": 1.0, "a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}
CANDIDATES = tuple(EmbedInput.of(name) for name in "abcd")


class Planar:
    """Unit vectors in a plane, whose cosine with `asked` is as the table says."""

    def describe(self) -> dict[str, Any]:
        return {"name": "planar", "fingerprint": "planar"}

    def accepts(self, item: EmbedInput) -> bool:
        return True

    def encode(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
        cosines = np.array(
            [COSINES[content.text] for item in items for content in item.content if isinstance(content, Text)]
        )
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)


def outcomes(*tasks: EvalTask) -> list[QueryRanks]:
    store = VectorStore(None, {})
    embed_all(tasks, Planar(), store, lambda _done, _all: None)
    return rank_tasks(tasks, store)


def results(*tasks: EvalTask) -> dict[str, Any]:
    return score_tasks(tasks, outcomes(*tasks))


def asking(*queries: Query, metrics: tuple[str, ...] = ("hit1",), name: str = "task", group: str = "") -> EvalTask:
    return EvalTask(name, "retrieval", (Part("all", queries, CANDIDATES),), "test", metrics, group)


def query(*truths: int, gains: tuple[float, ...] = (), hidden: tuple[int, ...] = ()) -> Query:
    return Query(ASKED, truths, ("test",), gains=gains, hidden=hidden)


# --- metrics ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hit1", 0),
        ("hit2", 1),
        ("recall2", 1 / 3),
        ("recall50", 1),
        ("map2", (1 / 2) / 2),
        ("map3", (1 / 2 + 2 / 3) / 3),
    ],
)
def test_metrics_at_a_cut(name: str, value: float) -> None:
    """Right candidates stand at 2, 3 and 9."""
    ranking = Ranking.of_ranks(np.array([2, 3, 9]))
    assert metric(name)(ranking) == pytest.approx(value)


def test_average_precision_without_a_cut_counts_everything() -> None:
    assert average_precision(Ranking.of_ranks(np.array([2, 3, 9]))) == pytest.approx((1 / 2 + 2 / 3 + 3 / 9) / 3)


@pytest.mark.parametrize("name", ["accuracy", "hit", "hit0", "hit01", "f1", "ndcg_5", ""])
def test_a_metric_that_there_is_not(name: str) -> None:
    with pytest.raises(ValueError, match="such as hit1, but is"):
        metric(name)


def test_rank_correlation_is_that_of_scipy() -> None:
    """The values are those of scipy 1.17.1 (`scipy.stats.spearmanr`); many of the drawn numbers are equal."""
    rng = np.random.default_rng(0)
    for expected in (0.261864757013389, -0.12074185677208062, 0.03486209869539081):
        one, other = rng.integers(0, 6, 40).astype(np.float64), rng.standard_normal(40).round(1)
        assert spearman(one, other) == pytest.approx(expected, abs=1e-12)
        assert spearman(one, -one) == pytest.approx(-1)
        assert spearman(one, np.ones(40)) == 0


# --- tasks ---


def test_a_task_is_scored_by_its_own_metrics() -> None:
    """The second of four is right: not found first, but among the first two."""
    result = results(asking(query(1), metrics=("recall2", "hit1")))["task"]
    assert (result["metric"], result["scores"]) == ("recall2", {"recall2": 1, "hit1": 0})
    assert task_score(result) == 1
    assert result["interval"] == [1, 1]
    assert result["hit1"] == 0


def test_a_more_relevant_page_counts_more() -> None:
    """Pages of relevance 1 and 2 at ranks 1 and 3: (1 + 2/2) / (2 + 1/log2 3)."""
    graded = query(2, 0, gains=(2.0, 1.0))
    result = results(asking(graded, metrics=("ndcg5",)))["task"]
    expected = 2 / (2 + 1 / np.log2(3))
    assert result["scores"]["ndcg5"] == pytest.approx(expected, abs=1e-6)
    assert result["slices"]["test"]["ndcg10"] == pytest.approx(expected, abs=1e-6)
    turned = results(asking(query(0, 2, gains=(1.0, 2.0)), metrics=("ndcg5",)))["task"]
    assert turned["scores"] == result["scores"]
    assert result["slices"]["test"]["hit1"] == 1


def test_a_query_does_not_see_what_is_hidden_from_it() -> None:
    seen = results(asking(query(2)))["task"]
    without = results(asking(query(2, hidden=(0, 1))))["task"]
    assert (seen["hit1"], without["hit1"]) == (0, 1)
    assert without["chance"] == 0.5
    assert without["parts"]["all"]["candidates"] == [2, 2]


def test_likeness_is_correlated_with_the_cosine() -> None:
    """People find d more alike than c, the model does not: ranks (1, 2, 3, 4) against (1, 2, 4, 3)."""

    def pairs(*likeness: float) -> Any:
        queries = tuple(
            Query(ASKED, (place,), ("test",), (place,), likeness=value) for place, value in enumerate(likeness)
        )
        part = Part("all", queries, CANDIDATES, shared=0)
        return results(EvalTask("sts", "STS", (part,), "test", ("spearman",)))["sts"]

    assert pairs(5, 4, 2, 2.5)["scores"] == {"spearman": pytest.approx(0.8)}
    assert pairs(5, 4, 2, 0)["scores"] == {"spearman": 1}
    assert pairs(0, 1, 2, 3)["scores"] == {"spearman": -1}


def test_what_is_right_changes_the_digest() -> None:
    plain = asking(query(0, 2)).parts[0]
    digests = {
        part_digest(replace(plain, queries=(one,)))
        for one in (
            query(0, 2),
            query(0, 2, gains=(1.0, 2.0)),
            query(0, 2, gains=(2.0, 1.0)),
            query(0, 2, hidden=(1,)),
            replace(query(0, 2), likeness=0.0),
        )
    }
    assert len(digests) == 5
    same = replace(plain, queries=(query(2, 0, gains=(2.0, 1.0)),))
    assert part_digest(same) == part_digest(replace(plain, queries=(query(0, 2, gains=(1.0, 2.0)),)))


def test_ranks_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = outcomes(asking(query(1), query(2, 0, gains=(2.0, 1.0)), replace(query(1), likeness=3.5)))
    sha256 = write_ranks(tmp_path / "x.ranks.parquet", found)
    assert read_ranks(tmp_path / "x.ranks.parquet", sha256) == found
    assert found[1].gains == (1, 2)
    assert found[2].cosine == pytest.approx(0.8)


# --- means ---


def test_groups_and_shared_metrics_have_means_of_their_own() -> None:
    metrics = ("recall2", "hit1")
    tasks = [asking(query(place), metrics=metrics, name=f"t{place}", group="ab"[place == 2]) for place in range(3)]
    means = overall(results(*tasks))
    assert means["groups"] == {"a": {"tasks": 2, "mean": 1}, "b": {"tasks": 1, "mean": 0}}
    assert means["scores"] == {"recall2": pytest.approx(2 / 3, abs=1e-6), "hit1": pytest.approx(1 / 3, abs=1e-6)}
    assert means["mean_over_tasks"] == means["scores"]["recall2"]


def test_a_report_names_the_metrics_and_what_is_not_there() -> None:
    found = results(
        asking(query(1), metrics=("recall2", "hit1"), name="one", group="image"), asking(query(0), name="two")
    )
    report: dict[str, Any] = {
        "suite": "x",
        "model": {"name": "planar"},
        "settings": {"split_prefix": "test", "limit_pool": None},
        "data": {},
        "diagnostics": {},
        "results": found,
        "overall": overall(found),
        "absent": ["three", "four"],
    }
    text = markdown([report])
    assert "| one (recall2) | 4 | 1 | - | 1.000 ± 0.000 |" in text
    assert "| two | 4 | 1 | 0.250 | 1.000 ± 0.000 |" in text
    assert "| one | hit1 | 0.000 |" in text
    assert "| **image, 1 tasks** |  |  |  | 1.000 |" in text
    assert "Not in the folder, and in no mean: three, four." in text


def test_items_of_a_task_are_those_of_its_parts() -> None:
    assert [item_key(item) for item in asking(query(0)).items()] == [*map(item_key, CANDIDATES), item_key(ASKED)]
