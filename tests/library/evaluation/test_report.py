import copy
from pathlib import Path
from typing import Any

import pytest

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.report import check_comparable, make_report, read_report, write_report

pytestmark = pytest.mark.fast


def values(hit1: float, queries: int = 40) -> dict[str, Any]:
    return {"queries": queries, "chance": 0.01, "hit1": hit1, "hit5": 1, "ndcg5": 1, "ndcg10": 1, "mrr": 1}


def result(hit1: float, pool: int = 100, meta: str = "retrieval") -> dict[str, Any]:
    slices = {"test": values(hit1), "test_new": values(hit1 / 2, 10)}
    return {
        "meta_task": meta,
        "headline": "test",
        "queries": 40,
        "hit1": hit1,
        "interval": [hit1 - 0.1, hit1 + 0.1],
        "chance": 0.01,
        "slices": slices,
        "parts": {"noto": {"pool": pool, "candidates": [4, 9], "sha256": f"of {pool}", "slices": slices}},
    }


def report(name: str, **results: dict[str, Any]) -> dict[str, Any]:
    return make_report(
        suite="mini-mmeb",
        model={"name": name, "fingerprint": name},
        settings={"split_prefix": "test", "limit_pool": None, "dimensions": None},
        checksums={"a.parquet": "1"},
        results=results,
        ranks_sha256="",
        failed={},
        diagnostics={"modality_gap": 0.5, "texts": {"cone": 0.25}},
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r["data"].update({"a.parquet": "2"}), "different versions of a.parquet"),
        (lambda r: r.update(suite="mmeb"), "one was measured on mini-mmeb, one on mmeb"),
        (lambda r: r["settings"].update(split_prefix="hidden"), "split_prefix differs"),
        (lambda r: r["settings"].update(limit_pool=9), "limit_pool differs"),
        (lambda r: r["results"]["x"]["parts"]["noto"].update(sha256="other"), "pools or queries of x differ"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(change: Any, reason: str) -> None:
    other = copy.deepcopy(report("other", x=result(0.5)))
    change(other)
    with pytest.raises(EvaluationError, match=reason):
        check_comparable(report("one", x=result(0.5)), other)


def test_reports_are_read_as_written(tmp_path: Path) -> None:
    one = report("one", x=result(0.5))
    write_report(tmp_path / "new" / "one.json", one)
    assert read_report(tmp_path / "new" / "one.json") == one


def test_the_configuration_has_a_hash() -> None:
    one, other = report("one", x=result(0.5)), report("other", x=result(0.25))
    assert one["config_sha256"] == other["config_sha256"]  # the model is no part of it
    assert report("one", y=result(0.5))["config_sha256"] != one["config_sha256"]


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 99}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"x\.json"):
        read_report(tmp_path / "x.json")
