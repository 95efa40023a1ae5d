"""The report as one HTML page that needs nothing else: no script, no font and no picture from elsewhere."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.gallery import TaskGallery, VectorMap
from mllm_embed.evaluation.report import Report, model_name
from mllm_embed.evaluation.report_tables import counted_tasks, first_with, pool_size, task_label
from mllm_embed.evaluation.scores_page import headline_tables, more_tables
from mllm_embed.evaluation.task_scores import task_score

COLOURS = ("#2f6fde", "#e07b1f", "#2a9d6f", "#b6449b", "#7a6ad8", "#c24141", "#5b7f95", "#a08a1b")
"""One per model; told apart by people with the common kinds of colour blindness in the order of use."""
_RADAR = 150.0
"""Radius of the radar, in SVG units."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One model's score on one task with its interval, and what it would be unperturbed if it is perturbed."""

    colour: str
    model: str
    value: float
    low: float
    high: float
    clean: float | None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task: its name, what is known of it, chance, and a bar per model that did it."""

    name: str
    meta_task: str
    queries: int
    pool: str
    chance: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Spoke:
    """One meta-task of the radar: where its label stands and how it is anchored."""

    name: str
    x: float
    y: float
    end_x: float
    end_y: float
    anchor: str


def html_page(
    reports: Sequence[Report], *, galleries: Sequence[TaskGallery] = (), vectors: VectorMap | None = None
) -> str:
    """Return the page.

    Args:
        reports: runs, side by side.
        galleries: what is shown of the tasks of one of the runs; empty leaves out pictures and similarities.
        vectors: the map of that run.

    Raises:
        EvaluationError: no reports, runs that cannot be compared, or jinja2 is not installed.
    """
    check_jinja()
    import jinja2

    _, runs = headline_tables(reports)
    source = files("mllm_embed.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["histogram_path"] = histogram_path
    metas = _meta_tasks(reports)
    profiles = [_complete(one, metas, reports) for one in reports]
    limit = radar_limit(profiles)
    return environment.from_string(source).render(
        suite=reports[0]["suite"],
        reports=reports,
        models=[(model_name(one), COLOURS[place % len(COLOURS)]) for place, one in enumerate(reports)],
        overall=_overall(reports),
        tasks=task_rows(reports),
        metas=metas,
        spokes=spokes(metas) if len(metas) >= 3 else [],
        polygons=[polygon([value / limit for value in values]) if values else "" for values in profiles],
        limit=limit,
        rings=[polygon([share] * len(metas)) for share in (0.25, 0.5, 0.75, 1.0)],
        runs=runs,
        tables=more_tables(reports),
        galleries=galleries,
        vectors=vectors,
    )


def check_jinja() -> None:
    """Raise `EvaluationError` if what the page is made with is not installed."""
    if importlib.util.find_spec("jinja2") is None:
        raise EvaluationError("the HTML page needs jinja2: pip install 'mllm-embed[eval]'")


def task_rows(reports: Sequence[Report]) -> list[TaskRow]:
    """Return every task that a run did, in the order of the suite."""
    rows = []
    for name in dict.fromkeys(name for report in reports for name in report["results"]):
        own = [(place, report["results"][name]) for place, report in enumerate(reports) if name in report["results"]]
        first = own[0][1]
        bars = tuple(
            Bar(
                COLOURS[place % len(COLOURS)],
                model_name(reports[place]),
                *_shares(task_score(result), *result["interval"]),
                result.get("robustness", {}).get("clean"),
            )
            for place, result in own
        )
        pool = pool_size(list(first["parts"].values()))
        rows.append(TaskRow(task_label(name, first), first["meta_task"], first["queries"], pool, first["chance"], bars))
    return rows


def _shares(value: float, low: float, high: float) -> tuple[float, float, float]:
    """Correlations may be below 0, bars not."""
    return max(value, 0.0), max(low, 0.0), max(high, 0.0)


def spokes(names: Sequence[str]) -> list[Spoke]:
    """Place the meta-tasks around the radar, the first at the top, clockwise."""
    found = []
    for place, name in enumerate(names):
        x, y = _on_circle(place, len(names), 1.0)
        label_x, label_y = x * 1.1, y * 1.1
        anchor = "middle" if abs(x) < 1 else "start" if x > 0 else "end"
        found.append(Spoke(name, round(label_x, 1), round(label_y, 1), round(x, 1), round(y, 1), anchor))
    return found


def radar_limit(profiles: Sequence[Sequence[float]]) -> float:
    """Return the value of the radar's outermost ring: low scores shall fill it too."""
    most = max((value for values in profiles for value in values), default=1.0)
    return next(limit for limit in (0.1, 0.2, 0.5, 1.0) if most <= limit)


def polygon(values: Sequence[float]) -> str:
    """Return the SVG points of a radar's polygon, values between 0 and 1."""
    corners = (_on_circle(place, len(values), value) for place, value in enumerate(values))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def histogram_path(counts: Sequence[int], most: int, width: float, height: float) -> str:
    """Return the SVG path of a filled histogram whose highest bin, `most`, is as high as the picture."""
    step, unit = width / len(counts), height / max(most, 1)
    steps = " ".join(
        f"L{place * step:.1f},{height - count * unit:.1f} L{(place + 1) * step:.1f},{height - count * unit:.1f}"
        for place, count in enumerate(counts)
    )
    return f"M0,{height:.1f} {steps} L{width:.1f},{height:.1f} Z"


def _on_circle(place: int, count: int, share: float) -> tuple[float, float]:
    angle = 2 * math.pi * place / count - math.pi / 2
    return _RADAR * share * math.cos(angle), _RADAR * share * math.sin(angle)


def _meta_tasks(reports: Sequence[Report]) -> list[str]:
    """Meta-tasks that means are over, in the order of the suite."""
    return list(dict.fromkeys(first_with(name, reports)["meta_task"] for name in counted_tasks(reports)))


def _complete(report: Report, metas: Sequence[str], reports: Sequence[Report]) -> list[float]:
    """A run's score on every meta-task, nothing if it did not do every task."""
    if report["overall"]["tasks"] < len(counted_tasks(reports)):
        return []
    return [float(report["overall"]["meta_tasks"][name]) for name in metas]


def _overall(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Both means per model; a mean over some of the tasks must not stand beside a mean over all."""
    every = len(counted_tasks(reports))
    return [
        {
            "tasks": one["overall"]["tasks"],
            "complete": one["overall"]["tasks"] == every > 0,
            **{name: one["overall"][name] for name in ("mean_over_tasks", "mean_over_meta_tasks")},
        }
        for one in reports
    ]
