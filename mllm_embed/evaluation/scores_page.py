"""Reports as Markdown: the tables of a run as they are printed, and the page of several that is published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mllm_embed.evaluation import report_tables
from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.report import Report, check_comparable
from mllm_embed.evaluation.report_tables import Table

WEAK_POINTS = {
    "mini-mmeb": "Real-photo variety is modest, kinds of figures are guessed from captions by regular expressions, "
    "and an unseen emoji concept can occur under the same word among the icons."
}
"""What must be said wherever scores of a suite are reported."""


def headline_tables(reports: Sequence[Report]) -> list[Table]:
    """Return the scores by task, and what was measured.

    Raises:
        EvaluationError: no reports, or runs that cannot be compared: other data, split, pools or queries.
    """
    if not reports:
        raise EvaluationError("a table needs at least one report")
    for other in reports[1:]:
        check_comparable(reports[0], other)
    return [report_tables.scores(reports), report_tables.runs(reports)]


def more_tables(reports: Sequence[Report], *, details: bool = True) -> list[Table]:
    """Return the other tables that have something to show; `details` adds languages, hubs, and parts and slices."""
    made = [report_tables.robustness, report_tables.instances, report_tables.metrics, report_tables.vectors]
    if details:
        made += [report_tables.languages, report_tables.hubs, report_tables.parts]
    return [table for make in made if (table := make(reports)).rows]


def markdown(reports: Sequence[Report], *, details: bool = True) -> str:
    """Return all tables as Markdown; see `headline_tables` and `more_tables`."""
    found = [*headline_tables(reports), *more_tables(reports, details=details)]
    return "\n".join([*_warnings(reports), *_sections(found)])


def scores_page(reports: Sequence[Report], *, command: str, details: bool = True) -> str:
    """Return the page that is published: title, the command that wrote it, how to read it, and all tables.

    Args:
        reports: runs, in the order of columns.
        command: what was typed.
        details: see `more_tables`.

    Raises:
        EvaluationError: see `headline_tables`.
    """
    found = [*headline_tables(reports), *more_tables(reports, details=details)]
    suite = reports[0]["suite"]
    lines = [
        f"# Scores on {suite}",
        "",
        f"Written by `{command}`; not to be changed by hand.",
        "`docs/evaluation.md` says how every task is made and what a number means. Everything here comes from the",
        "JSON reports of `mllm-embed eval`, one per model, on the same data, queries and candidates; checksums, seeds,",
        "settings and versions stand there. A dash is what a model cannot do or did not do.",
        "",
        *_warnings(reports),
        *([f"**Weak points of the data.** {WEAK_POINTS[suite]}", ""] if suite in WEAK_POINTS else []),
        *_sections(found),
    ]
    return "\n".join(lines)


def _warnings(reports: Sequence[Report]) -> Iterator[str]:
    if limit := reports[0]["settings"]["limit_pool"]:
        yield from (f"**A smoke run, cut to {limit}: not comparable with any other numbers.**", "")
    for report in reports:
        if absent := report.get("absent"):
            yield from (f"Not in the folder, and in no mean: {', '.join(absent)}.", "")
            break
    for report in reports:
        if failed := report.get("failed"):
            yield from (f"Failed for {report['model']['name']}: {', '.join(failed)}.", "")


def _sections(found: Sequence[Table]) -> Iterator[str]:
    for table in found:
        yield from (f"## {table.title}", "", table.says, "")
        yield _row(table.head)
        yield _row(["---"] * table.words + ["---:"] * (len(table.head) - table.words))
        yield from map(_row, table.rows)
        yield ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
