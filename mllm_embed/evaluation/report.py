"""Reports: the JSON file of one run, and the Markdown table that puts several side by side."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mllm_embed import __version__
from mllm_embed.evaluation.eval_types import ROBUSTNESS, EvaluationError
from mllm_embed.evaluation.mmeb import SLICE_IN, SLICE_OUT
from mllm_embed.evaluation.runner import overall
from mllm_embed.evaluation.task_scores import HIT1, task_metric, task_score
from mllm_embed.tasks import TASKS

SCHEMA_VERSION = 2
Report = dict[str, Any]
DIAGNOSTICS = {
    "modality gap": ("modality_gap",),
    "cone, pictures": ("pictures", "cone"),
    "cone, texts": ("texts", "cone"),
    "uniformity, pictures": ("pictures", "uniformity"),
    "uniformity, texts": ("texts", "uniformity"),
    "effective rank, pictures": ("pictures", "effective_rank"),
    "effective rank, texts": ("texts", "effective_rank"),
}
"""Diagnostics of all vectors by label, and where they stand in a report."""


def make_report(
    *,
    suite: str,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    checksums: Mapping[str, str],
    results: Mapping[str, Any],
    ranks_sha256: str,
    diagnostics: Mapping[str, Any],
    failed: Mapping[str, str],
) -> Report:
    """Assemble the JSON values of one run; everything but `timing`, which the caller adds, is reproducible.

    Args:
        suite: name of the suite.
        model: what the encoder says of itself.
        settings: what was asked for, seeds included.
        checksums: SHA-256 of every data file that was read.
        results: of `score_tasks`.
        ranks_sha256: of the file of ranks beside the report.
        diagnostics: of `diagnose`.
        failed: tasks that could not be measured, and why.
    """
    instructions = {name: {"query": task.query, "target": task.target} for name, task in sorted(TASKS.items())}
    config = {
        "suite": suite,
        "settings": dict(settings),
        "instructions": instructions,
        "data": dict(checksums),
        "tasks": list(results),
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": suite,
        "model": dict(model),
        "instructions": instructions,
        "settings": dict(settings),
        "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "data": dict(checksums),
        "versions": _versions(),
        "overall": overall(dict(results)),
        "diagnostics": dict(diagnostics),
        "results": dict(results),
        "failed": dict(failed),
        "ranks_sha256": ranks_sha256,
    }


def read_report(path: Path) -> Report:
    """Read a report.

    Raises:
        EvaluationError: not a report, or of another schema version.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} is not a readable report: {error}") from None
    if not isinstance(report, dict) or report.get("schema_version") != SCHEMA_VERSION:
        raise EvaluationError(f"{path} is not an evaluation report of schema version {SCHEMA_VERSION}")
    return report


def write_report(path: Path, report: Report) -> None:
    """Write a report as indented JSON; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def markdown(reports: Sequence[Report], *, details: bool = True) -> str:
    """Return Markdown tables of the tasks' scores, models side by side.

    Args:
        reports: runs, in the order of columns.
        details: add the table of parts and slices.

    Raises:
        EvaluationError: no reports, or runs that cannot be compared: other data, split, pools or queries.
    """
    if not reports:
        raise EvaluationError("a table needs at least one report")
    for other in reports[1:]:
        check_comparable(reports[0], other)
    names = _all_tasks(reports)
    counted = [name for name in names if _first_with(name, reports)["results"][name]["meta_task"] != ROBUSTNESS]
    lines = [_row(["task", "pool", "queries", "chance", *(model_name(report) for report in reports)])]
    lines.append(_row(["---", "---:", "---:", "---:", *("---:" for _ in reports)]))
    lines += [_task_row(name, reports) for name in counted]
    for label, path in _means_of(reports[0]).items():
        cells = [_mean_cell(report, path, len(counted)) for report in reports]
        lines.append(_row([f"**{label}**", "", "", "", *cells]))
    head = "Hit@1, or the metric that a task names, ± half of the 95 % bootstrap interval."
    if limit := reports[0]["settings"]["limit_pool"]:
        head += f" A smoke run, cut to {limit}: not comparable with any other numbers."
    if absent := reports[0].get("absent"):
        lines += ["", f"Not in the folder, and in no mean: {', '.join(absent)}."]
    lines += _robustness([name for name in names if name not in counted], reports)
    if details:
        lines += [*_more_scores(names, reports), *_details(names, reports)]
    return "\n".join([head, "", *lines]) + "\n"


def diagnostics_table(reports: Sequence[Report]) -> str:
    """Return a Markdown table of what the vectors' shape says, models side by side; `-` where it was not computed."""
    lines = [_row(["vectors", *(model_name(report) for report in reports)])]
    lines.append(_row(["---", *("---:" for _ in reports)]))
    for label, path in DIAGNOSTICS.items():
        values = [diagnostic(report, path) for report in reports]
        lines.append(_row([label, *("-" if value is None else _number(value) for value in values)]))
    return "\n".join(lines) + "\n"


def diagnostic(report: Report, path: Sequence[str]) -> float | None:
    """Return one diagnostic of a run, None where it was not computed."""
    value: Any = report["diagnostics"]
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else float(value)


def check_comparable(one: Report, other: Report) -> None:
    """Raise `EvaluationError` if two runs differ in data, split, pools or queries: their numbers say nothing."""
    pair = f"{model_name(one)} and {model_name(other)}"
    if one["suite"] != other["suite"]:
        raise EvaluationError(f"{pair} cannot be compared: one was measured on {one['suite']}, one on {other['suite']}")
    for key in ("split_prefix", "limit_pool"):
        if one["settings"][key] != other["settings"][key]:
            raise EvaluationError(f"{pair} cannot be compared: {key} differs")
    for file in sorted(set(one["data"]) & set(other["data"])):
        if one["data"][file] != other["data"][file]:
            raise EvaluationError(f"{pair} cannot be compared: they were measured on different versions of {file}")
    for name in set(one["results"]) & set(other["results"]):
        if _shape(one["results"][name]) != _shape(other["results"][name]):
            raise EvaluationError(f"{pair} cannot be compared: pools or queries of {name} differ")


def _shape(result: Mapping[str, Any]) -> list[Any]:
    return [(name, part["sha256"]) for name, part in result["parts"].items()]


def _means_of(report: Report) -> dict[str, tuple[str, ...]]:
    """Label every mean of a run, and say where it stands under `overall`."""
    means = report["overall"]
    groups = {
        f"{name}, {group['tasks']} tasks": ("groups", name, "mean") for name, group in means.get("groups", {}).items()
    }
    scores = {f"mean over tasks, {name}": ("scores", name) for name in means.get("scores", {})}
    return {
        "mean over tasks": ("mean_over_tasks",),
        "mean over meta-tasks": ("mean_over_meta_tasks",),
        **{f"mean, {mark}": (mark,) for mark in (SLICE_IN, SLICE_OUT) if mark in means},
        **groups,
        **scores,
    }


def _more_scores(names: Sequence[str], reports: Sequence[Report]) -> list[str]:
    """One row per metric of the tasks whose makers report several."""
    several = [
        (name, scores)
        for name in names
        if len(scores := _first_with(name, reports)["results"][name].get("scores", {})) > 1
    ]
    rows = [
        _row([name, metric, *(_score_cell(report, name, metric) for report in reports)])
        for name, scores in several
        for metric in scores
    ]
    head = ["task", "metric", *(model_name(report) for report in reports)]
    return ["", "By metric:", "", _row(head), _row(["---", "---", *("---:" for _ in reports)]), *rows] if rows else []


def _score_cell(report: Report, name: str, metric: str) -> str:
    return _number(report["results"][name]["scores"][metric]) if name in report["results"] else "-"


def _robustness(names: Sequence[str], reports: Sequence[Report]) -> list[str]:
    """One row per perturbation: what is lost of the clean score, and the clean score."""
    rows = [
        _row([name, part, *(_drop_cell(report, name, part) for report in reports)])
        for name in names
        for part in ("", *_first_with(name, reports)["results"][name]["robustness"]["parts"])
    ]
    head = ["task", "perturbation", *(model_name(report) for report in reports)]
    title = "Robustness: the same queries, clean -> perturbed, and what that costs ± half of its 95 % interval."
    return ["", title, "", _row(head), _row(["---", "---", *("---:" for _ in reports)]), *rows] if rows else []


def _drop_cell(report: Report, name: str, part: str) -> str:
    if name not in report["results"]:
        return "-"
    lost = report["results"][name]["robustness"]
    lost = lost["parts"][part] if part else lost
    half = (lost["interval"][1] - lost["interval"][0]) / 2
    return f"{_number(lost['clean'])} -> {_number(lost['perturbed'])} ({-lost['drop']:+.3f} ± {half:.3f})"


def _details(names: Sequence[str], reports: Sequence[Report]) -> list[str]:
    """One row per part and slice, for tasks that have more than one."""
    head = ["task", "part", "slice", "pool", "queries", "chance", *(model_name(report) for report in reports)]
    lines = ["", "By part and slice:", "", _row(head), _row(["---", "---", "---", *("---:" for _ in head[3:])])]
    for name in names:
        result = _first_with(name, reports)["results"][name]
        for part, slice_name in [(part, key) for part, values in result["parts"].items() for key in values["slices"]]:
            values = result["parts"][part]["slices"][slice_name]
            cells = [_slice_cell(report, name, part, slice_name) for report in reports]
            pool = pool_size([result["parts"][part]])
            lines.append(_row([name, part, slice_name, pool, str(values["queries"]), _chance(result, values), *cells]))
    return lines


def _slice_cell(report: Report, name: str, part: str, slice_name: str) -> str:
    if name not in report["results"]:
        return "-"
    result = report["results"][name]
    values = result["parts"][part]["slices"][slice_name]
    return _number(values[task_metric(result)])


def _chance(result: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Chance is that of Hit@1, and says nothing of other metrics."""
    return _number(values["chance"]) if task_metric(result) == HIT1 else "-"


def _task_row(name: str, reports: Sequence[Report]) -> str:
    result = _first_with(name, reports)["results"][name]
    pool = pool_size(list(result["parts"].values()))
    cells = []
    for report in reports:
        own = report["results"].get(name)
        cells.append(
            "-" if own is None else f"{_number(task_score(own))} ± {(own['interval'][1] - own['interval'][0]) / 2:.3f}"
        )
    return _row([task_label(name, result), pool, f"{result['queries']:,}", _chance(result, result), *cells])


def task_label(name: str, result: Mapping[str, Any]) -> str:
    """Return a task's name, with its metric unless that is Hit@1."""
    metric = task_metric(result)
    return name if metric == HIT1 else f"{name} ({metric})"


def pool_size(parts: Sequence[Mapping[str, Any]]) -> str:
    """Return how many candidates a query sees, in words; where each query has its own, from the fewest to the most."""
    sizes = [size for part in parts for size in ([part["pool"]] if part["pool"] else part["candidates"])]
    low, high = min(sizes), max(sizes)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _mean_cell(report: Report, path: Sequence[str], tasks: int) -> str:
    """A mean over some of the tasks must not stand beside a mean over all."""
    if report["overall"]["tasks"] != tasks:
        return "-"
    value = report["overall"]
    for key in path:
        value = value[key]
    return "-" if value is None else _number(value)


def _all_tasks(reports: Sequence[Report]) -> list[str]:
    return list(dict.fromkeys(name for report in reports for name in report["results"]))


def _first_with(name: str, reports: Sequence[Report]) -> Report:
    return next(report for report in reports if name in report["results"])


def model_name(report: Report) -> str:
    """Return the name that a run has in tables; a cut width is part of it."""
    dimensions = report["settings"].get("dimensions")
    return str(report["model"]["name"]) + (f" @{dimensions}" if dimensions else "")


def _number(value: float) -> str:
    return f"{value:.3f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _versions() -> dict[str, str]:
    versions = {"mllm-embed": __version__, "python": platform.python_version()}
    for package in ("numpy", "pillow", "torch", "transformers", "vllm"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
