"""The vectors that mining compares: made by a model and kept on disk, or read from files of `mllm-embed embed`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mllm_embed.backends import BackendName
from mllm_embed.commands.embed_run import embed_good
from mllm_embed.commands.rows import VIDEOS, Row
from mllm_embed.embedder import Embedder
from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed.model_dir import open_model_dir
from mllm_embed.tasks import Task
from mllm_embed.types import EmbedInput, Truncate
from mllm_embed.vectors import finish
from mllm_embed_training.data_files.schemas import make_side, read_picture
from mllm_embed_training.data_files.stores import open_rows
from mllm_embed_training.errors import CorruptRow, DataFileError
from mllm_embed_training.mining.items import Item, exact_key

AS_GIVEN = Task("vectors", "query", "target")
"""In place of a task where vectors are given: their instructions are in them already, so the role alone is left."""
_PART_ROWS = 2048
_PART_SECONDS = 10.0
"""A kill loses at most this much work."""

Wanted = Mapping[str, tuple[Item, str]]
"""Item and instruction by vector key."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a model makes the vectors; the fields are options of the command."""

    model: str
    backend: BackendName
    precision: str
    truncate: Truncate
    batch_size: int

    def describe(self) -> dict[str, Any]:
        """Return what decides the vectors of given inputs."""
        fingerprint = open_model_dir(self.model).fingerprint
        return {
            "model": fingerprint,
            "backend": self.backend,
            "precision": self.precision,
            "truncate": self.truncate,
        }


def vector_key(item: Item, instruction: str) -> str:
    """Name the vector of an item under an instruction."""
    return hashlib.sha256(json.dumps([item.exact, instruction]).encode()).hexdigest()


def embed_missing(wanted: Wanted, store: VectorStore, encoding: Encoding, console: Console) -> dict[str, str]:
    """Let the model make the vectors that the store lacks, and put them there.

    What is done survives a kill: the store keeps it on disk.

    Returns:
        why, by key, for items that cannot be embedded.

    Raises:
        MllmEmbedError: the model or the engine is at fault.
    """
    todo = [key for key in wanted if key not in store]
    if len(todo) < len(wanted):
        console.print(f"{len(wanted) - len(todo):,} of {len(wanted):,} vectors are there already", highlight=False)
    if not todo:
        return {}
    with console.status(f"starting {encoding.model}"):
        embedder = Embedder.load(encoding.model, backend=encoding.backend, precision=encoding.precision)
    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failed: dict[str, str] = {}
    with embedder, Progress(*columns, console=console) as progress, _Parts(store) as parts:
        bar = progress.add_task("", total=len(todo))
        for start in range(0, len(todo), encoding.batch_size):
            keys = todo[start : start + encoding.batch_size]
            good, matrix = embed_good(
                [_row(key, *wanted[key]) for key in keys],
                lambda rows: embedder.embed([row.item for row in rows], truncate=encoding.truncate),
                lambda row, reason: failed.update({row.key: reason}),
            )
            parts.add([row.key for row in good], matrix)
            progress.advance(bar, len(keys))
    return failed


def _row(key: str, item: Item, instruction: str) -> Row:
    return Row(key, key, None, None, EmbedInput(item.content(), instruction))


class _Parts:
    """Gathers vectors into parts that are worth a file each."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self._keys: list[str] = []
        self._vectors: list[NDArray[np.float32]] = []
        self._kept_at = time.monotonic()

    def add(self, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
        if keys:
            self._keys += keys
            self._vectors.append(vectors)
        if len(self._keys) >= _PART_ROWS or time.monotonic() - self._kept_at > _PART_SECONDS:
            self._keep()

    def _keep(self) -> None:
        if self._keys:
            self._store.add(self._keys, np.concatenate(self._vectors))
        self._keys, self._vectors, self._kept_at = [], [], time.monotonic()

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._keep()


def read_given(queries: Path, targets: Path, wanted: Wanted, store: VectorStore, cache: Path) -> None:
    """Put the vectors that files of `mllm-embed embed` hold into the store; items are recognised by their content.

    Args:
        queries: file of the queries' vectors, .parquet or .jsonl.
        targets: file of the vectors of positives, negatives and corpus.
        wanted: what is needed, under the instructions of `AS_GIVEN`.
        store: receives them.
        cache: folder for what is derived from parquet files.

    Raises:
        DataFileError: a file without rows or vectors, widths that differ, or items that a file has no vector for.
    """
    widths = []
    for path, role in ((queries, AS_GIVEN.query), (targets, AS_GIVEN.target)):
        needed = {item.exact: (key, item) for key, (item, instruction) in wanted.items() if instruction == role}
        found = {exact: vector for exact, vector in _read_file(path, cache) if exact in needed}
        if missing := [item for exact, (_, item) in needed.items() if exact not in found]:
            raise DataFileError(
                f"{path} must hold vectors of {len(needed):,} different things, but lacks {len(missing):,} of them, "
                f"the first in row {missing[0].row + 1} of {missing[0].file.path}"
            )
        store.add([key for key, _ in needed.values()], finish(np.stack([found[exact] for exact in needed])))
        widths.append(next(iter(found.values())).size)
    if widths[0] != widths[1]:
        raise DataFileError(f"{queries} has vectors of {widths[0]} numbers, but {targets} of {widths[1]}")


def _read_file(path: Path, cache: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the exact key and the vector of each row; pictures are named as the command saw them when it ran."""
    if path.suffix not in (".parquet", ".jsonl"):
        raise DataFileError(
            f"vectors must be in a .parquet or .jsonl file, which says what they are of, but are in {path}"
        )
    rows, picture, width = open_rows(str(path), cache), read_picture(Path()), 0
    for number in range(len(rows)):
        try:
            row = rows[number]
            shown = row.get("image")  # the command names videos there too
            kind = "video" if Path(str(shown)).suffix.lower() in VIDEOS else "image"
            side = make_side({"text": row.get("text"), kind: shown}, picture)
            vector = np.asarray(row.get("vector"), dtype=np.float32)
        except (CorruptRow, TypeError, ValueError) as error:
            raise DataFileError(f"row {number + 1} of {path} cannot be used: {error}") from None
        width = width or vector.size
        if vector.ndim != 1 or vector.size != width or not np.isfinite(vector).all() or not vector.any():
            raise DataFileError(f"row {number + 1} of {path} must have a vector of {width} finite numbers, not all 0")
        yield exact_key(side.content), vector
