"""Exported reports are what leaderboards and the hub read."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from mllm_embed.evaluation.cli import evaluate
from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.leaderboards import export_report
from mllm_embed.evaluation.report import make_report, write_report

pytestmark = pytest.mark.fast


def result(metric: str, score: float, group: str, parts: tuple[str, ...] = ("all",)) -> dict[str, Any]:
    values = {"queries": 40, "chance": 0.01, "hit1": 0.5, "hit5": 0.75, "ndcg5": 0.6, "ndcg10": 0.65, "mrr": 0.55}
    values |= {"recall10": 0.9, "map": 0.5, "r_precision": 0.5}
    return {
        "meta_task": "retrieval",
        "headline": "test",
        "group": group,
        "queries": 40,
        "hit1": 0.5,
        "metric": metric,
        "scores": {metric: score},
        "interval": [0.4, 0.6],
        "chance": 0.01,
        "slices": {"test": values},
        "parts": {name: {"pool": 9, "candidates": [9, 9], "sha256": "", "slices": {"test": values}} for name in parts},
    }


def report(suite: str = "mmeb-v2", limit: int | None = None) -> dict[str, Any]:
    return make_report(
        suite=suite,
        model={"name": "org/name", "fingerprint": "f", "family": "qwen3_vl", "full_dimensions": 320},
        settings={"limit_pool": limit, "dimensions": 64},
        checksums={},
        results={
            "ImageNet-1K": result("hit1", 0.5, "image"),
            "ViDoRe_arxivqa": result("ndcg5", 0.7, "visdoc"),
            "names": result("hit1", 0.5, "image", parts=("de", "en")),
        },
        ranks_sha256="",
        failed={},
        diagnostics={},
    )


def test_mmeb_takes_scores_by_modality_and_set() -> None:
    ((name, values),) = export_report(report(), "mmeb").items()
    assert name == "org__name.json"
    assert isinstance(values, dict)
    assert values["metadata"]["embedding_dimension"] == 64
    assert values["metadata"]["data_source"] == "Self-Reported"
    assert values["metadata"]["model_release_date"] is None
    assert set(values["metrics"]) == {"image", "visdoc"}
    assert values["metrics"]["image"]["ImageNet-1K"]["hit@1"] == 0.5
    assert values["metrics"]["image"]["ImageNet-1K"]["num_data"] == 40
    document = values["metrics"]["visdoc"]["ViDoRe_arxivqa"]
    assert document["ndcg_linear@5"] == 0.7  # the task's own, of graded relevance
    assert "mrr" not in " ".join(document)  # theirs is cut, ours is not


def test_mteb_takes_a_file_per_task_with_its_parts() -> None:
    files = export_report(report(), "mteb")
    assert list(files) == ["ImageNet-1K.json", "ViDoRe_arxivqa.json", "names.json"]
    document, names = files["ViDoRe_arxivqa.json"], files["names.json"]
    assert isinstance(document, dict)
    assert isinstance(names, dict)
    (subset,) = document["scores"]["test"]
    assert (subset["main_score"], subset["hf_subset"], subset["ndcg_at_10"]) == (0.7, "default", 0.65)
    assert [part["hf_subset"] for part in names["scores"]["test"]] == ["de", "en"]
    assert names["dataset_revision"] == report()["config_sha256"]


@pytest.mark.skipif(importlib.util.find_spec("mteb") is None, reason="needs mteb (pip install mteb)")
@pytest.mark.filterwarnings("default")
def test_mteb_reads_them(tmp_path: Path) -> None:
    from mteb.results import TaskResult

    for name, content in export_report(report(), "mteb").items():
        (tmp_path / name).write_text(json.dumps(content))
        assert TaskResult.from_disk(tmp_path / name).task_name == name.removesuffix(".json")


def test_a_model_card_carries_one_result_per_task() -> None:
    ((name, text),) = export_report(report(), "model-card").items()
    assert name == "model-index.yaml"
    assert isinstance(text, str)
    (index,) = yaml.safe_load(text.strip("-\n"))["model-index"]
    assert index["name"] == "org/name"
    first = index["results"][0]
    assert first["task"] == {"type": "retrieval"}
    assert first["dataset"]["type"] == "TIGER-Lab/MMEB-V2"
    assert first["metrics"] == [{"type": "hit@1", "value": 0.5}]
    assert [one["metrics"][0]["type"] for one in index["results"]] == ["hit@1", "ndcg_linear@5", "hit@1"]


@pytest.mark.parametrize(
    ("values", "shape", "message"),
    [
        (report(limit=20), "model-card", "a smoke run, cut to 20"),
        (report("mini-mmeb"), "mmeb", "takes the suites mmeb and mmeb-v2, not mini-mmeb"),
        (report(), "helm", "the shape must be one of mmeb, mteb, model-card, but is 'helm'"),
    ],
)
def test_what_no_leaderboard_takes_is_refused(values: dict[str, Any], shape: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        export_report(values, shape)


def test_the_command_writes_and_names_the_files(tmp_path: Path) -> None:
    write_report(tmp_path / "report.json", report())
    arguments = ["export", str(tmp_path / "report.json"), "--as", "mmeb", "--out", str(tmp_path / "out")]
    answer: Result = CliRunner().invoke(evaluate, arguments)
    assert answer.exit_code == 0, answer.output
    assert json.loads((tmp_path / "out" / "org__name.json").read_text())["metadata"]["model_name"] == "org/name"
    assert "org__name.json" in answer.output
