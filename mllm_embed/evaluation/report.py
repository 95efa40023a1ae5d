"""Reports: the JSON file of one run, and whether two of them can be compared."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mllm_embed import __version__
from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.runner import overall
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


def model_name(report: Report) -> str:
    """Return the name that a run has in tables; a cut width is part of it."""
    dimensions = report["settings"].get("dimensions")
    return str(report["model"]["name"]) + (f" @{dimensions}" if dimensions else "")


def _versions() -> dict[str, str]:
    versions = {"mllm-embed": __version__, "python": platform.python_version()}
    for package in ("numpy", "pillow", "torch", "transformers", "vllm"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
