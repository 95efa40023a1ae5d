"""What mining found: counts, scores and the examples to look at, as JSON, as a page and as a picture."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mllm_embed.types import Image, Text
from mllm_embed_training.mining.dataset import Fault
from mllm_embed_training.mining.items import Item
from mllm_embed_training.mining.miner import Corpus, Mined
from mllm_embed_training.mining.outputs import HISTOGRAM, REPORT_JSON, REPORT_MD, seen_from
from mllm_embed_training.mining.rules import Rules

_WORST = 10
_LONGEST = 120
"""Characters of a text that are shown."""
_RULES = {"max_relative": "max-relative", "margin": "margin", "max_score": "max-score"}


def make_report(
    mined: Sequence[Mined], corpus: Corpus, rules: Rules, settings: Mapping[str, Any], skipped: Sequence[Fault]
) -> dict[str, Any]:
    """Count and summarise; equal runs give equal reports.

    Args:
        mined: every row that was used.
        corpus: what was searched.
        rules: gives the number of negatives wanted.
        settings: what the user asked for, as JSON values.
        skipped: rows and corpus entries that could not be used.
    """
    found = np.array([len(one.negatives) for one in mined])
    firsts = [one.choice.best is None or one.positive_score > one.choice.best[1] for one in mined]
    return {
        "settings": dict(settings),
        "rows": len(mined),
        "corpus": {"entries": len(corpus.items) + corpus.duplicates, "duplicates": corpus.duplicates},
        "negatives": {
            "mined": int(found.sum()),
            "brought_along": sum(len(one.own_scores) for one in mined),
            "rows_with_enough": int((found >= rules.per_query).sum()),
            "rows_with_fewer": int(((found > 0) & (found < rules.per_query)).sum()),
            "rows_with_none": int((found == 0).sum()),
        },
        "dropped_as_false_negatives": _total(one.choice.dropped for one in mined),
        "excluded_as_equal_to": _total(one.choice.excluded for one in mined),
        "positive_before_all_candidates": round(sum(firsts) / len(mined), 4),
        "scores": {
            "positive": _summary([one.positive_score for one in mined]),
            "mined": _summary([score for one in mined for score in one.choice.scores.tolist()]),
        },
        "closest_negatives": _closest(mined),
        "weakest_positives": _weakest(mined),
        "skipped": [{"file": str(fault.file), "row": fault.row + 1, "reason": fault.reason} for fault in skipped],
    }


def write_report(report: Mapping[str, Any], mined: Sequence[Mined], folder: Path) -> None:
    """Write report.json, report.md and the histogram into a folder."""
    (folder / REPORT_JSON).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / REPORT_MD).write_text(markdown(report), encoding="utf-8")
    _draw(mined, folder / HISTOGRAM)


def markdown(report: Mapping[str, Any]) -> str:
    """Return the page for people."""
    negatives, corpus, wanted = report["negatives"], report["corpus"], report["settings"]["per_query"]
    counts = [
        ("rows", report["rows"]),
        ("corpus entries", corpus["entries"]),
        ("corpus entries equal to an earlier one", corpus["duplicates"]),
        ("negatives mined", negatives["mined"]),
        ("negatives that rows brought along", negatives["brought_along"]),
        (f"rows with {wanted} negatives", negatives["rows_with_enough"]),
        (f"rows with fewer than {wanted}", negatives["rows_with_fewer"]),
        ("rows with none", negatives["rows_with_none"]),
        *(
            (f"candidates dropped as false negatives by {_RULES[rule]}", count)
            for rule, count in report["dropped_as_false_negatives"].items()
        ),
        *(
            (f"hits left out as equal to a {reason} of the row", count)
            for reason, count in report["excluded_as_equal_to"].items()
        ),
        ("rows and corpus entries that could not be used", len(report["skipped"])),
    ]
    sections = [
        "# Mined negatives",
        _table(["", "count"], [[name, f"{count:,}"] for name, count in counts]),
        f"The positive scores above every candidate in {report['positive_before_all_candidates']:.1%} of the rows.",
        "## Scores",
        _scores(report["scores"]),
        f"![Scores of positives and of mined negatives]({HISTOGRAM})",
        "## Negatives closest to their positive",
        "Look here for false negatives; a lower max-relative drops them.",
        _examples(report["closest_negatives"], "negative"),
        "## Positives farthest behind the best candidate",
        "Look here for wrong labels, and for what the model cannot do.",
        _examples(report["weakest_positives"], "best candidate"),
        "## Settings",
        f"```json\n{json.dumps(report['settings'], indent=1, ensure_ascii=False)}\n```",
    ]
    if report["skipped"]:
        rows = [[fault["file"], str(fault["row"]), fault["reason"]] for fault in report["skipped"]]
        sections += ["## Not used", _table(["file", "row", "why"], rows)]
    return "\n\n".join(sections) + "\n"


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return dict(sorted(total.items()))


def _summary(scores: Sequence[float]) -> dict[str, float | int]:
    if not scores:
        return {"count": 0}
    names = ("p5", "median", "p95")
    quantiles = zip(names, np.quantile(scores, [0.05, 0.5, 0.95]), strict=True)
    values = {"mean": np.mean(scores), **dict(quantiles)}
    return {"count": len(scores), **{name: round(float(value), 4) for name, value in values.items()}}


def _closest(mined: Sequence[Mined]) -> list[dict[str, Any]]:
    """Return the rows whose best negative comes closest to the positive, or scores above it."""
    some = [one for one in mined if one.negatives]
    worst = heapq.nlargest(_WORST, some, key=lambda one: float(one.choice.scores[0]) - one.positive_score)
    return [_example(one, one.negatives[0], float(one.choice.scores[0])) for one in worst]


def _weakest(mined: Sequence[Mined]) -> list[dict[str, Any]]:
    """Return the rows whose positive lies farthest behind the best candidate."""
    behind = [
        (one, one.rival, one.choice.best[1])
        for one in mined
        if one.rival is not None and one.choice.best is not None and one.choice.best[1] > one.positive_score
    ]
    worst = heapq.nlargest(_WORST, behind, key=lambda entry: entry[2] - entry[0].positive_score)
    return [_example(*entry) for entry in worst]


def _example(one: Mined, other: Item, score: float) -> dict[str, Any]:
    return {
        "row": one.pair.query.row + 1,
        "query": _shown(one.pair.query),
        "positive": " / ".join(_shown(item) for item in one.pair.positives[:3]),
        "positive_score": round(one.positive_score, 4),
        "other": _shown(other),
        "other_score": round(score, 4),
    }


def _shown(item: Item) -> str:
    """Describe an item in a line: its texts cut short, its pictures and videos by name."""
    parts = []
    for part in item.content(seen_from(Path(), item.file.images)):
        if isinstance(part, Text):
            parts.append(" ".join(part.text.split()))
        else:
            name = "inside the file" if isinstance(part.source, bytes) else str(part.source)
            parts.append(f"[{'picture' if isinstance(part, Image) else 'video'} {name}]")
    line = " ".join(parts)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _scores(scores: Mapping[str, Mapping[str, float]]) -> str:
    names = ("count", "mean", "p5", "median", "p95")
    rows = [[kind, *(f"{found[name]:,}" if name in found else "" for name in names)] for kind, found in scores.items()]
    return _table(["", *names], rows)


def _examples(examples: Sequence[Mapping[str, Any]], other: str) -> str:
    if not examples:
        return "None."
    columns = ("row", "query", "positive", "positive_score", "other", "other_score")
    head = ["row", "query", "positive", "score", other, "score"]
    return _table(head, [[str(example[column]) for column in columns] for example in examples])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _draw(mined: Sequence[Mined], picture: Path) -> None:
    """Draw how the scores of positives and of mined negatives are distributed."""
    from matplotlib.figure import Figure

    positives = [one.positive_score for one in mined]
    negatives = [score for one in mined for score in one.choice.scores.tolist()]
    both = positives + negatives
    bins = np.linspace(min(both) - 1e-3, max(both) + 1e-3, 61)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    for scores, name in ((positives, "positives"), (negatives, "mined negatives")):
        if scores:
            share = np.full(len(scores), 1 / len(scores))
            axis.hist(scores, bins=bins.tolist(), weights=share, alpha=0.6, label=f"{len(scores):,} {name}")
    axis.set(xlabel="cosine with the query", ylabel="share")
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")
    figure.savefig(picture, dpi=110)
