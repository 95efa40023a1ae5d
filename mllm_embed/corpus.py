"""Corpora that one machine cannot embed: Ray Data streams the rows past as many embedders as its cluster has room for.

Ray is imported by the function that needs it; it comes with the extra `ray`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.backends import BackendName
from mllm_embed.commands.embed_run import embed_good
from mllm_embed.embedder import Embedder
from mllm_embed.errors import InputError, InvalidInput
from mllm_embed.model_dir import BUILT_IN
from mllm_embed.tasks import DEFAULT, Role
from mllm_embed.types import Content, EmbedInput, Image, Text

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

_Row = tuple[int, EmbedInput]
"""A row of a batch by its place, and what is embedded of it."""


@dataclass(frozen=True, kw_only=True)
class CorpusJob:
    """How the rows of a corpus are embedded.

    Attributes:
        model: a model directory, a hub name, or the built-in model; every node of the cluster must reach it.
        backend: the engine of each worker.
        precision: of its weights.
        text: column of texts; absent or null where a row has none.
        image: column of encoded pictures, as bytes; absent or null where a row has none. It stands before the text.
        task: whose instruction is used.
        role: side of the task.
        dimensions: width to cut the vectors to; None keeps all.
    """

    model: str = BUILT_IN
    backend: BackendName = "auto"
    precision: str = "float32"
    text: str = "text"
    image: str = "image"
    task: str = DEFAULT
    role: Role = "target"
    dimensions: int | None = None


def embed_dataset(
    rows: Dataset, job: CorpusJob, *, workers: int = 1, batch_size: int = 64, **resources: Any
) -> Dataset:
    """Embed a dataset of Ray Data, lazily and in a stream, with the vectors that `Embedder.embed` gives.

    Args:
        rows: the corpus, of any size.
        job: model, columns and instruction.
        workers: embedders that work at once at most; each loads the model.
        batch_size: rows handed to an engine at once.
        resources: what each worker needs of the cluster, as `Dataset.map_batches` takes it, such as `num_gpus=1`.

    Returns:
        the rows with two more columns: `embedding`, a list of float32, null where the row cannot be embedded, and
        `error`, which says why, null elsewhere.

    Raises:
        InvalidInput: the rows have neither a column of texts nor one of pictures.
    """
    columns = rows.columns() or []
    if job.text not in columns and job.image not in columns:
        raise InvalidInput(f"the rows have no column {job.text!r} or {job.image!r}, only {', '.join(columns)}")
    embedded: Dataset = rows.map_batches(
        CorpusWorker,
        fn_constructor_args=(asdict(job),),
        batch_format="pyarrow",
        batch_size=batch_size,
        concurrency=(1, workers),  # a small corpus does not wait for models that it has no work for
        **resources,
    )
    return embedded


class CorpusWorker:
    """One embedder of a cluster; Ray makes it where there is room.

    Args:
        job: the fields of a `CorpusJob`.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = CorpusJob(**job)
        self._embedder = Embedder.load(self._job.model, backend=self._job.backend, precision=self._job.precision)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a batch with the columns `embedding` and `error`."""
        import pyarrow as pa

        vectors: list[NDArray[np.float32] | None] = [None] * batch.num_rows
        errors: list[str | None] = [None] * batch.num_rows

        def report(row: _Row, reason: str) -> None:
            errors[row[0]] = reason

        try:
            good, matrix = embed_good(self._rows(batch, errors), self._compute, report)
        except InputError as error:  # no single row's fault
            good, matrix = [], np.zeros((0, 0), dtype=np.float32)
            errors = [own or error.message for own in errors]
        for (index, _), vector in zip(good, matrix, strict=True):
            vectors[index] = vector
        column = pa.array(vectors, type=pa.list_(pa.float32()))
        return batch.append_column("embedding", column).append_column("error", pa.array(errors, type=pa.string()))

    def _rows(self, batch: pa.Table, errors: list[str | None]) -> list[_Row]:
        """Return what is to be embedded; an empty row is an error of its own."""
        nothing = [None] * batch.num_rows
        columns = set(batch.column_names)
        texts = batch[self._job.text].to_pylist() if self._job.text in columns else nothing
        images = batch[self._job.image].to_pylist() if self._job.image in columns else nothing
        rows = []
        for index, (text, image) in enumerate(zip(texts, images, strict=True)):
            content: list[Content] = [Image(image)] if image is not None else []
            content += [Text(text)] if text is not None else []
            if content:
                rows.append((index, EmbedInput(tuple(content))))
            else:
                errors[index] = "the row has neither text nor image"
        return rows

    def _compute(self, rows: Sequence[_Row]) -> NDArray[np.float32]:
        job = self._job
        items = [item for _, item in rows]
        return self._embedder.embed(items, task=job.task, role=job.role, dimensions=job.dimensions)
