"""The run behind `mllm-embed embed`: batches, a progress bar, and finished parts that survive a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mllm_embed.backends import BackendName
from mllm_embed.commands.rows import Row
from mllm_embed.commands.vector_file import PartStore
from mllm_embed.embedder import Embedder
from mllm_embed.errors import InputError
from mllm_embed.model_dir import open_model_dir
from mllm_embed.types import DENSE, Embedding, Outputs

_PART_ROWS = 2048
_PART_BYTES = 2**26
_PART_SECONDS = 10.0
"""A kill loses at most this much work."""

T = TypeVar("T")
V = TypeVar("V")
Compute = Callable[[Sequence[Row]], list[Embedding]]
"""Embeds rows; raises an `InputError` with the offender's index."""


@dataclass(frozen=True)
class EmbedRun:
    """What a run is asked for; the fields are the options of the command."""

    model: str
    backend: BackendName
    precision: str
    instruction: str
    dimensions: int | None
    batch_size: int
    outputs: Outputs = DENSE


@dataclass(frozen=True)
class Outcome:
    """What a run did: rows in the output, and rows that could not be embedded."""

    written: int
    skipped: int


def run(rows: Sequence[Row], output: Path, wanted: EmbedRun) -> Outcome:
    """Embed the rows that no earlier run has finished, then write the output.

    Args:
        rows: what the output is to hold, in order.
        output: the file to write.
        wanted: model, engine and settings.

    Raises:
        InvalidInput: an earlier, unfinished run had other settings.
        MllmEmbedError: the model or the engine is at fault.
    """
    console = Console(stderr=True)
    settings = {
        "model": open_model_dir(wanted.model).fingerprint,
        "precision": wanted.precision,
        "instruction": wanted.instruction,
        "dimensions": wanted.dimensions,
        **({} if wanted.outputs == DENSE else asdict(wanted.outputs)),
    }
    store = PartStore(output, settings)
    finished = store.finished()
    todo = [row for row in rows if row.key not in finished]
    if len(todo) < len(rows):
        console.print(f"going on: {len(rows) - len(todo)} of {len(rows)} rows are done already")
    skipped = 0
    if todo:
        with console.status(f"starting {wanted.model}"):
            embedder = Embedder.load(wanted.model, backend=wanted.backend, precision=wanted.precision)
        with embedder:
            console.print(f"{embedder.name} on {embedder.backend.name}: {len(todo)} rows to embed")

            def compute(batch: Sequence[Row]) -> list[Embedding]:
                items = [row.item for row in batch]
                options: dict[str, Any] = {"instruction": wanted.instruction, "dimensions": wanted.dimensions}
                return embedder.embed_outputs(items, wanted.outputs, **options)

            skipped = embed_rows(todo, compute, store, wanted.batch_size, console)
    written = store.finish(rows)
    console.print(
        f"{output}: {written} rows" + (f", {skipped} skipped" if skipped else ""), highlight=False, soft_wrap=True
    )
    return Outcome(written, skipped)


def embed_rows(rows: Sequence[Row], compute: Compute, store: PartStore, batch_size: int, console: Console) -> int:
    """Embed rows under a progress bar and keep what is finished; return how many were skipped."""

    def report(row: Row, reason: str) -> None:
        console.print(f"skipped {row.id}: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    done: list[tuple[Row, Embedding]] = []
    skipped, size, kept_at = 0, 0, time.monotonic()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(rows))
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            good, embeddings = good_of(batch, compute, report)
            skipped += len(batch) - len(good)
            done += zip(good, embeddings, strict=True)
            size += sum(map(_bytes, embeddings))
            is_much = len(done) >= _PART_ROWS or size >= _PART_BYTES
            if done and (is_much or time.monotonic() - kept_at > _PART_SECONDS):
                store.append(done)
                done, size, kept_at = [], 0, time.monotonic()
            progress.advance(bar, len(batch))
    if done:
        store.append(done)
    return skipped


def _bytes(embedding: Embedding) -> int:
    return embedding.vector.nbytes + (0 if embedding.multivector is None else embedding.multivector.nbytes)


def embed_good(
    batch: Sequence[T], compute: Callable[[Sequence[T]], NDArray[np.float32]], report: Callable[[T, str], None]
) -> tuple[list[T], NDArray[np.float32]]:
    """Embed the rows of a batch that can be embedded, and report the others.

    Args:
        batch: the rows.
        compute: embeds rows; raises an `InputError` with the offender's index.
        report: is told each row that cannot be embedded, and why.

    Returns:
        the rows that were embedded, N of them, and their vectors, float32, shape [N, D].

    Raises:
        InputError: the fault is no single row's: an impossible width, for instance.
    """
    good, vectors = good_of(batch, lambda rows: list(compute(rows)), report)
    return good, np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)


def good_of(
    batch: Sequence[T], compute: Callable[[Sequence[T]], list[V]], report: Callable[[T, str], None]
) -> tuple[list[T], list[V]]:
    """Like `embed_good`, for results of any kind, one per row."""
    good = list(batch)
    while good:
        try:
            return good, compute(good)
        except InputError as error:
            if error.index is None:
                raise
            report(good.pop(error.index), error.message)
    return [], []
