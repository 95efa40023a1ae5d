"""A report in the shapes that leaderboards and model cards take.

Shapes: MMEB's submission (TIGER-AI-Lab/VLM2Vec, `experiments/report_score_v2.py` and `experiments/public/all_scores`),
mteb 2's `TaskResult`, and the hub's `model-index` (huggingface_hub writes it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.task_scores import task_metric, task_score

Files = dict[str, dict[str, Any] | str]
"""What is written: file names, each with JSON values or a text."""
_MMEB_NAMES = {
    "hit1": "hit@1",
    "hit5": "hit@5",
    "ndcg5": "ndcg_linear@5",
    "ndcg10": "ndcg_linear@10",
    "recall10": "recall@10",
}
"""Our metrics that mean the same there; its nDCG is of linear gains."""
_MTEB_NAMES = {
    "hit1": "hit_rate_at_1",
    "hit5": "hit_rate_at_5",
    "ndcg5": "ndcg_at_5",
    "ndcg10": "ndcg_at_10",
    "recall10": "recall_at_10",
}
_DATASETS = {"mmeb": "TIGER-Lab/MMEB-eval", "mmeb-v2": "TIGER-Lab/MMEB-V2"}
"""Names on the hub of the suites that MMEB's leaderboard knows."""


def export_report(report: Mapping[str, Any], shape: str) -> Files:
    """Turn a report into the files of one shape.

    Args:
        report: of a complete run.
        shape: one of `SHAPES`.

    Raises:
        EvaluationError: another shape, a smoke run, or a suite that the leaderboard does not know.
    """
    if shape not in SHAPES:
        raise EvaluationError(f"the shape must be one of {', '.join(SHAPES)}, but is {shape!r}")
    if limit := report["settings"].get("limit_pool"):
        raise EvaluationError(f"this was a smoke run, cut to {limit}: its numbers compare with no leaderboard's")
    return SHAPES[shape](report)


def _mmeb(report: Mapping[str, Any]) -> Files:
    """One file: scores of each data set by modality; what only the submitter knows is null."""
    if report["suite"] not in _DATASETS:
        raise EvaluationError(f"MMEB's leaderboard takes the suites {' and '.join(_DATASETS)}, not {report['suite']}")
    metrics: dict[str, dict[str, Any]] = {}
    for name, result in report["results"].items():
        values = {**result["slices"][result["headline"]], **result.get("scores", {})}
        metrics.setdefault(result.get("group") or "image", {})[name] = {
            **{theirs: values[ours] for ours, theirs in _MMEB_NAMES.items() if ours in values},
            "num_pred": result["queries"],
            "num_data": result["queries"],
        }
    model = report["model"]
    metadata = {
        "model_name": model["name"],
        "model_backbone": model.get("family"),
        "model_size": None,
        "embedding_dimension": report["settings"].get("dimensions") or model.get("full_dimensions"),
        "max_length_tokens": model.get("max_tokens"),
        "model_release_date": None,
        "data_source": "Self-Reported",
        "url": None,
    }
    return {f"{_file_name(model['name'])}.json": {"metadata": metadata, "metrics": metrics}}


def _mteb(report: Mapping[str, Any]) -> Files:
    """One file per task; parts are subsets, and the run's configuration stands for the revision of the data."""
    files: Files = {}
    for name, result in report["results"].items():
        scores = [_subset(result, part, values) for part, values in result["parts"].items()]
        files[f"{_file_name(name)}.json"] = {
            "dataset_revision": report["config_sha256"],
            "task_name": name,
            "mteb_version": None,
            "scores": {result["headline"]: scores},
            "evaluation_time": None,
            "kg_co2_emissions": None,
        }
    return files


def _subset(result: Mapping[str, Any], part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    own = values["slices"][result["headline"]]
    main = task_score(result) if len(result["parts"]) == 1 else own[task_metric(result)]
    return {
        **{theirs: own[ours] for ours, theirs in _MTEB_NAMES.items() if ours in own},
        "main_score": main,
        "hf_subset": "default" if part == "all" else part,
        "languages": [],
    }


def _model_card(report: Mapping[str, Any]) -> Files:
    """The YAML that stands at the head of a model card, with one result per task."""
    from huggingface_hub import EvalResult, ModelCardData

    dataset = _DATASETS.get(report["suite"], report["suite"])
    results = [
        EvalResult(
            task_type=result["meta_task"],
            dataset_type=dataset,
            dataset_name=f"{report['suite']} {name}",
            dataset_config=name,
            dataset_split=result["headline"],
            dataset_revision=report["config_sha256"],
            metric_type=_MMEB_NAMES.get(task_metric(result), task_metric(result)),
            metric_value=task_score(result),
        )
        for name, result in report["results"].items()
    ]
    card = ModelCardData(model_name=report["model"]["name"], eval_results=results)
    return {"model-index.yaml": f"---\n{card.to_yaml()}\n---\n"}


def _file_name(name: str) -> str:
    return name.replace("/", "__")


SHAPES: dict[str, Callable[[Mapping[str, Any]], Files]] = {"mmeb": _mmeb, "mteb": _mteb, "model-card": _model_card}
"""What a report can be turned into."""
