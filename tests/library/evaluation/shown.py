"""Tasks as a reader sees them: texts as they are, pictures by the id of their row."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from mllm_embed.evaluation.eval_types import EvalTask, Part
from mllm_embed.types import EmbedInput, Text

Names = dict[bytes, str]
DRAWN = "drawn"
"""Stands for a picture that a task makes."""


def picture_names(data_path: Path) -> Names:
    """Picture bytes -> id of its row."""
    found = {}
    for file in data_path.glob("*.parquet"):
        for row in pq.read_table(file).to_pylist():
            if "image" in row:
                prefix = "page of " if "hires" in file.name else ""
                found[row["image"]] = prefix + str(row.get("image_id") or row.get("image_sha"))
    return found


def part(task: EvalTask, name: str = "all") -> Part:
    return next(part for part in task.parts if part.name == name)


def shown(item: EmbedInput, names: Names) -> str:
    words = []
    for content in item.content:
        if isinstance(content, Text):
            words.append(content.text)
        else:
            words.append(names[content.source] if isinstance(content.source, bytes) else DRAWN)
    return " + ".join(words)


def answers(problem: Part, names: Names, wanted: str) -> list[str]:
    """What is right for the queries that are shown as `wanted`."""
    queries = [query for query in problem.queries if shown(query.item, names) == wanted]
    assert queries
    return sorted(shown(problem.candidates[place], names) for query in queries for place in query.truths)


def asked(problem: Part, slice_name: str, names: Names) -> list[str]:
    return sorted(shown(query.item, names) for query in problem.queries if slice_name in query.slices)
