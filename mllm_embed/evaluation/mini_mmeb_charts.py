"""The task of `mini-mmeb` on charts: questions about the mark that is drawn and about what the axes show."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mllm_embed.evaluation.data_folder import DataFolder, Row
from mllm_embed.evaluation.eval_types import Part, Query
from mllm_embed.evaluation.mini_mmeb_pairs import text_target
from mllm_embed.evaluation.mini_mmeb_rows import CHART_QUESTIONS, chart_answer, class_name
from mllm_embed.evaluation.pools import Selection, hash_order
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Image, Text

CHARTS = ("charts_vegalite.parquet", ("image_id", "marks", "encodings", "image", "split"))


def chart_questions(data: DataFolder, selection: Selection) -> Part:
    """A chart and a question ask for the answer, among the answers to all questions about all charts."""
    charts = [row for row in data.rows(*CHARTS) if selection.is_usable(row["split"])]
    names = sorted({answer for row in charts for _, answers in questions_about(row) for answer in answers})
    places = {name: place for place, name in enumerate(names)}
    held_out = [row for row in charts if selection.is_held_out(row["split"])]
    queries = [
        Query(
            EmbedInput((Image(row["image"]), Text(CHART_QUESTIONS[kind])), get_task("question").query),
            tuple(sorted(places[answer] for answer in answers)),
            (*selection.slices(row["split"]), kind),
        )
        for row in hash_order(held_out, lambda row: str(row["image_id"]))
        for kind, answers in questions_about(row)
    ]
    return Part("all", tuple(queries[: selection.pool_limit]), tuple(text_target(name) for name in names))


def questions_about(row: Row) -> list[tuple[str, Sequence[str]]]:
    """Return what can be asked of a chart, by kind, each with all right answers: a layered chart has several marks."""
    answers: dict[str, set[str]] = {kind: set() for kind in CHART_QUESTIONS}
    answers["mark"].update(class_name(mark) for mark in row["marks"] or ())
    for channel, aggregate, field, _ in json.loads(row["encodings"] or "[]"):
        if channel in answers and (answer := chart_answer(aggregate, field)):
            answers[channel].add(answer)
    return [(kind, sorted(found)) for kind, found in answers.items() if found]
