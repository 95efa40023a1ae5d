"""Public sets as a reader sees them: files written in a few lines, items by name, an encoder with known cosines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mllm_embed.evaluation.eval_types import EvalTask, Query
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_sets import public_tasks
from mllm_embed.evaluation.runner import embed_all, rank_tasks, score_tasks
from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed.types import EmbedInput, Text
from tests.library.evaluation.conftest import picture


def draw(folder: Path, *names: str) -> None:
    """Draw pictures by name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(name))


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def stored(name: str) -> dict[str, Any]:
    """A picture as the datasets library writes it."""
    return {"bytes": picture(name), "path": None}


def build(
    suite: str,
    folder: Path,
    limit: int | None = None,
    *,
    name: str | None = None,
    frames: int = 8,
    only: Sequence[str] = (),
) -> dict[str, EvalTask]:
    """The tasks of a suite by name."""
    public = PublicFolder(folder, name=name, frames=frames, only=only)
    return {task.name: task for task in public_tasks(suite, public, limit)}


def shown(item: EmbedInput) -> str:
    """Texts as they are; pictures by their file, those of parquet files by what was drawn."""
    words = []
    for content in item.content:
        if isinstance(content, Text):
            words.append(content.text)
        else:
            source = content.source
            assert isinstance(source, Path)
            words.append(source.name if source.suffix else DRAWN.get(source.read_bytes(), "picture"))
    return " + ".join(words)


DRAWN = {picture(name): name for name in (*(f"page {i}" for i in range(9)), *"abcdefgh", *"ABCDEFGH")}
"""Drawn pictures that tests put into parquet files, and their names."""


def asked(task: EvalTask, part: int = 0) -> dict[str, list[str]]:
    """Every query of a part with its right answers."""
    own = task.parts[part]
    return {shown(query.item): [shown(own.candidates[place]) for place in query.truths] for query in own.queries}


def seen(task: EvalTask, query: Query) -> list[str]:
    """The candidates that only this query sees."""
    return [shown(task.parts[0].candidates[place]) for place in query.extras]


class Angles:
    """Every item is a direction in a plane, by what it shows."""

    def __init__(self, degrees: Mapping[str, float]) -> None:
        self._degrees = degrees

    def describe(self) -> dict[str, Any]:
        return {"name": "angles", "fingerprint": "angles"}

    def accepts(self, item: EmbedInput) -> bool:
        return True

    def encode(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
        radians = np.radians([self._degrees[shown(item)] for item in items])
        return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def scored(tasks: Mapping[str, EvalTask], degrees: Mapping[str, float]) -> dict[str, Any]:
    """Results of the tasks with items at these angles."""
    own = list(tasks.values())
    store = VectorStore(None, {})
    embed_all(own, Angles(degrees), store, lambda _done, _all: None)
    return score_tasks(own, rank_tasks(own, store))
