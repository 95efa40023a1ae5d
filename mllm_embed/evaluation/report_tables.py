"""The tables of a report, models side by side; what a model did not do is a dash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mllm_embed.evaluation.eval_types import ROBUSTNESS
from mllm_embed.evaluation.mmeb import SLICE_IN, SLICE_OUT
from mllm_embed.evaluation.report import DIAGNOSTICS, Report, diagnostic, model_name
from mllm_embed.evaluation.task_scores import HIT1, task_metric, task_score

NONE = "-"
_ALL = "all"
"""Stands for all perturbations of a task."""
MULTILINGUAL = "multilingual"
"""The meta-task whose parts are languages."""
Result = Mapping[str, Any]
"""What a report holds of one task."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text.

    Attributes:
        title: what it is of.
        says: how to read it, in a sentence or two.
        head: names of the columns.
        rows: cells by row; without rows there is nothing to show.
        words: so many columns, from the left, hold words, the others numbers.
    """

    title: str
    says: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


def runs(reports: Sequence[Report]) -> Table:
    """What was measured and how: means, and everything that must be known to repeat it."""
    return Table(
        "Models",
        "Means over tasks that only some models did would compare different things: a model has a mean only where it "
        "did every task. Robustness tasks count in none.",
        ("", *map(model_name, reports)),
        (*_mean_rows(reports), *_meta_task_rows(reports), *_fact_rows(reports)),
    )


def scores(reports: Sequence[Report]) -> Table:
    """One row per task that counts."""
    rows = []
    for name in counted_tasks(reports):
        result = first_with(name, reports)
        chance = _number(result["chance"]) if task_metric(result) == HIT1 else NONE
        cells = _cells(reports, name, _score_cell)
        pool = pool_size(list(result["parts"].values()))
        rows.append((task_label(name, result), pool, f"{result['queries']:,}", chance, *cells))
    means = ((f"**{label}**", "", "", "", *cells) for label, *cells in _mean_rows(reports))
    return Table(
        "Tasks",
        "Hit@1, or the metric that a task names, ± half of the 95 % bootstrap interval.",
        ("task", "pool", "queries", "chance", *map(model_name, reports)),
        (*rows, *means),
    )


def robustness(reports: Sequence[Report]) -> Table:
    """What each perturbation costs, by task."""
    rows = []
    for name in _all_tasks(reports):
        parts = first_with(name, reports).get("robustness", {}).get("parts", {})
        rows += [(name, part, *_cells(reports, name, _drop_cell, part)) for part in ((_ALL, *parts) if parts else ())]
    return Table(
        "Robustness",
        "The same queries as they are -> perturbed, over the same candidates, and what that changes ± half of its 95 % "
        "paired bootstrap interval. Hit@1.",
        ("task", "perturbation", *map(model_name, reports)),
        tuple(rows),
        words=2,
    )


def languages(reports: Sequence[Report]) -> Table:
    """Hit@1 by language."""
    rows = []
    for name in _all_tasks(reports):
        result = first_with(name, reports)
        if result["meta_task"] == MULTILINGUAL:
            for language, part in result["parts"].items():
                values = part["slices"][result["headline"]]
                cells = _cells(reports, name, _slice_cell, language, result["headline"])
                rows.append((name, language, f"{values['queries']:,}", _number(values["chance"]), *cells))
    head = ("task", "language", "queries", "chance", *map(model_name, reports))
    return Table("Languages", "Hit@1 by language of the query.", head, tuple(rows), words=2)


def instances(reports: Sequence[Report]) -> Table:
    """How much the way of asking matters, where one thing is asked for in several."""
    measures = {"mean rank variance": "mean_rank_variance", "every way first": "all_hit1"}
    rows = []
    for name in _all_tasks(reports):
        if found := first_with(name, reports).get("instances"):
            for label, key in measures.items():
                cells = _cells(reports, name, _instance_cell, key)
                rows.append((name, label, f"{found['ways']:,}", f"{found['count']:,}", *cells))
    return Table(
        "The same thing, asked for in several ways",
        "In several languages, under several instructions, or perturbed: how far the rank of one thing varies between "
        "the ways (in squared ranks; lower is steadier), and how often every way finds it first.",
        ("task", "measure", "ways", "things", *map(model_name, reports)),
        tuple(rows),
        words=2,
    )


def vectors(reports: Sequence[Report]) -> Table:
    """What the shape of all vectors says."""
    values = {label: [diagnostic(report, path) for report in reports] for label, path in DIAGNOSTICS.items()}
    return Table(
        "Diagnostics of the vectors",
        "Modality gap: distance between the centroids of pictures and of texts. Cone: mean cosine of two vectors, 0 is "
        "spread out. Uniformity: lower is more uniform. Effective rank: directions in use.",
        ("vectors", *map(model_name, reports)),
        tuple((label, *(NONE if one is None else _number(one) for one in row)) for label, row in values.items()),
    )


def hubs(reports: Sequence[Report]) -> Table:
    """How uneven candidates are found, by task."""
    names = _all_tasks(reports)
    found = {name: [diagnostic(report, ("tasks", name, "hubness")) for report in reports] for name in names}
    return Table(
        "Hubs",
        "Skewness of how often a candidate is among the ten nearest: candidates that everything finds make it large.",
        ("task", *map(model_name, reports)),
        tuple(
            (name, *(NONE if one is None else f"{one:.1f}" for one in row)) for name, row in found.items() if any(row)
        ),
    )


def metrics(reports: Sequence[Report]) -> Table:
    """All metrics of the tasks whose makers report several."""
    rows = [
        (name, metric, *_cells(reports, name, _metric_cell, metric))
        for name in counted_tasks(reports)
        if len(found := first_with(name, reports).get("scores", {})) > 1
        for metric in found
    ]
    head = ("task", "metric", *map(model_name, reports))
    return Table("By metric", "Of tasks whose makers report several.", head, tuple(rows), words=2)


def parts(reports: Sequence[Report]) -> Table:
    """One row per part and slice of every task that has no table of its own."""
    rows = []
    for name in counted_tasks(reports):
        result = first_with(name, reports)
        places = [(part, key) for part, values in result["parts"].items() for key in values["slices"]]
        for part, key in places if result["meta_task"] != MULTILINGUAL else ():
            values = result["parts"][part]["slices"][key]
            cells = _cells(reports, name, _slice_cell, part, key)
            pool = pool_size([result["parts"][part]])
            rows.append((name, part, key, pool, f"{values['queries']:,}", _number(values["chance"]), *cells))
    return Table(
        "By part and slice",
        "Slices are groups of queries: all that are held out (test), those of unseen kinds (test_new) or combinations "
        "(test_comp), and some that were seen in training (train), which no score includes.",
        ("task", "part", "slice", "pool", "queries", "chance", *map(model_name, reports)),
        tuple(rows),
        words=3,
    )


def counted_tasks(reports: Sequence[Report]) -> list[str]:
    """Return the names of all tasks that means are over."""
    return [name for name in _all_tasks(reports) if first_with(name, reports)["meta_task"] != ROBUSTNESS]


def first_with(name: str, reports: Sequence[Report]) -> dict[str, Any]:
    """Return a task's result in the first report that has it: what is the same for all stands there."""
    found: dict[str, Any] = next(report["results"][name] for report in reports if name in report["results"])
    return found


def task_label(name: str, result: Result) -> str:
    """Return a task's name, with its metric unless that is Hit@1."""
    metric = task_metric(result)
    return name if metric == HIT1 else f"{name} ({metric})"


def pool_size(parts: Sequence[Mapping[str, Any]]) -> str:
    """Return how many candidates a query sees, in words; where each query has its own, from the fewest to the most."""
    sizes = [size for part in parts for size in ([part["pool"]] if part["pool"] else part["candidates"])]
    low, high = min(sizes), max(sizes)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _all_tasks(reports: Sequence[Report]) -> list[str]:
    return list(dict.fromkeys(name for report in reports for name in report["results"]))


def _cells(reports: Sequence[Report], name: str, show: Callable[..., str], *places: str) -> Iterator[str]:
    """What each model has of one task; `show` takes its result and where in it to look."""
    for report in reports:
        own = report["results"].get(name)
        yield NONE if own is None else show(own, *places)


def _score_cell(own: Result) -> str:
    low, high = own["interval"]
    return f"{_number(task_score(own))} ± {(high - low) / 2:.3f}"


def _metric_cell(own: Result, metric: str) -> str:
    return _number(own["scores"][metric])


def _instance_cell(own: Result, measure: str) -> str:
    value = own["instances"][measure]
    return f"{value:,.0f}" if measure == "mean_rank_variance" else _number(value)


def _slice_cell(own: Result, part: str, key: str) -> str:
    values = own["parts"][part]["slices"][key]
    return _number(values.get(task_metric(own), values[HIT1]))


def _drop_cell(own: Result, part: str) -> str:
    lost = own["robustness"] if part == _ALL else own["robustness"]["parts"][part]
    low, high = lost["interval"]
    change = f"{0 - lost['drop']:+.3f} ± {(high - low) / 2:.3f}"  # 0 - 0.0 has no sign, as -0.0 has
    return f"{_number(lost['clean'])} -> {_number(lost['perturbed'])} ({change})"


def _mean_rows(reports: Sequence[Report]) -> Iterator[tuple[str, ...]]:
    """Every mean of the first run; a mean over some of the tasks must not stand beside a mean over all."""
    means = reports[0]["overall"]
    groups = means.get("groups", {})
    places: dict[str, tuple[str, ...]] = {
        "mean over tasks": ("mean_over_tasks",),
        "mean over meta-tasks": ("mean_over_meta_tasks",),
        **{f"mean, {mark}": (mark,) for mark in (SLICE_IN, SLICE_OUT) if mark in means},
        **{f"{name}, {group['tasks']} tasks": ("groups", name, "mean") for name, group in groups.items()},
        **{f"mean over tasks, {name}": ("scores", name) for name in means.get("scores", {})},
    }
    every = len(counted_tasks(reports))
    for label, path in places.items():
        yield label, *(_at(report["overall"], path) if _did(report) == every else NONE for report in reports)


def _meta_task_rows(reports: Sequence[Report]) -> Iterator[tuple[str, ...]]:
    members: dict[str, list[str]] = {}
    for name in counted_tasks(reports):
        members.setdefault(first_with(name, reports)["meta_task"], []).append(name)
    for meta, names in members.items():
        cells = (
            _at(report["overall"], ("meta_tasks", meta)) if set(names) <= set(report["results"]) else NONE
            for report in reports
        )
        yield f"{meta} ({len(names)})", *cells


def _fact_rows(reports: Sequence[Report]) -> Iterator[tuple[str, ...]]:
    every = len(counted_tasks(reports))
    yield "tasks", *(f"{_did(report)} of {every}" for report in reports)
    facts: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "fingerprint": lambda known: _told(known, "fingerprint")[:16],
        "prompt template": lambda known: _told(known, "template", "template_version"),
        "precision": lambda known: _told(known, "precision"),
        "engine": lambda known: _told(known, "backend"),
        "width of vectors": lambda known: _told(known, "dimensions" if known.get("dimensions") else "full_dimensions"),
        "most pixels of a picture": lambda known: _told(known, "max_pixels"),
        "most frames of a clip": lambda known: _told(known, "frames"),
    }
    for label, tell in facts.items():
        yield label, *(tell({**report["model"], **report["settings"]}) for report in reports)


def _did(report: Report) -> int:
    return int(report["overall"]["tasks"])


def _at(values: Any, path: Sequence[str]) -> str:
    for key in path:
        values = values[key]
    return NONE if values is None else _number(values)


def _told(known: Mapping[str, Any], *names: str) -> str:
    """What a run tells of itself, numbers with separators."""
    values = [known[name] for name in names if known.get(name) is not None]
    return " ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in values) or NONE


def _number(value: float) -> str:
    return f"{value:.3f}"
