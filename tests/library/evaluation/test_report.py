import copy
from pathlib import Path
from typing import Any

import pytest

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.report import diagnostics_table, make_report, markdown, read_report, write_report

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


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_models_stand_side_by_side() -> None:
    one, other = report("one", x=result(0.5), y=result(0.25, meta="VQA")), report("other", x=result(0.75))
    table = rows(markdown([one, other], details=False))
    assert table[0] == ["task", "pool", "queries", "chance", "one", "other"]
    assert table[2] == ["x", "100", "40", "0.010", "0.500 ± 0.100", "0.750 ± 0.100"]
    assert table[3] == ["y", "100", "40", "0.010", "0.250 ± 0.100", "-"]


def test_a_mean_over_some_tasks_does_not_stand_beside_one_over_all() -> None:
    one, other = report("one", x=result(0.5), y=result(0.25)), report("other", x=result(0.75))
    table = rows(markdown([one, other], details=False))
    assert table[4] == ["**mean over tasks**", "", "", "", "0.375", "-"]
    assert table[5] == ["**mean over meta-tasks**", "", "", "", "0.375", "-"]


def test_details_show_every_part_and_slice() -> None:
    table = rows(markdown([report("one", x=result(0.5))]))
    assert ["x", "noto", "test_new", "100", "10", "0.010", "0.250"] in table


def test_a_smoke_run_says_so() -> None:
    small = report("one", x=result(0.5))
    small["settings"]["limit_pool"] = 20
    assert "cut to 20" in markdown([small])


def test_a_cut_width_is_part_of_the_name() -> None:
    cut = report("one", x=result(0.5))
    cut["settings"]["dimensions"] = 64
    assert "one @64" in markdown([cut])


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
        markdown([report("one", x=result(0.5)), other])


def test_reports_are_read_as_written(tmp_path: Path) -> None:
    one = report("one", x=result(0.5))
    write_report(tmp_path / "new" / "one.json", one)
    assert read_report(tmp_path / "new" / "one.json") == one


def test_a_query_with_candidates_of_its_own_sees_from_to() -> None:
    table = rows(markdown([report("one", x=result(0.5, pool=0))], details=False))
    assert table[2][:2] == ["x", "4 to 9"]


def test_diagnostics_stand_side_by_side() -> None:
    table = rows(diagnostics_table([report("one", x=result(0.5)), report("other", x=result(0.5))]))
    assert ["modality gap", "0.500", "0.500"] in table
    assert ["cone, texts", "0.250", "0.250"] in table
    assert ["cone, pictures", "-", "-"] in table


def test_the_configuration_has_a_hash() -> None:
    one, other = report("one", x=result(0.5)), report("other", x=result(0.25))
    assert one["config_sha256"] == other["config_sha256"]  # the model is no part of it
    assert report("one", y=result(0.5))["config_sha256"] != one["config_sha256"]


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 99}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"x\.json"):
        read_report(tmp_path / "x.json")


def test_a_table_needs_a_report() -> None:
    with pytest.raises(EvaluationError, match="at least one"):
        markdown([])
