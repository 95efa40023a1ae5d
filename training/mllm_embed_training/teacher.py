"""A teacher's vectors, computed once and kept in a file: any embedder can teach, and training needs none of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mllm_embed.tasks import Role
from mllm_embed.types import Image, Text
from mllm_embed_training.config import Kind
from mllm_embed_training.errors import CorruptRow, DataFileError
from mllm_embed_training.examples import Example, Side


def taught_key(side: Side, kind: Kind) -> str | None:
    """Return what a teacher's vector of a side is kept under: the text itself, or the side's key for a picture.

    Returns:
        None for what is not one text, or one whole picture.
    """
    if len(side.content) != 1:
        return None
    (content,) = side.content
    if kind == "text":
        return content.text if isinstance(content, Text) else None
    return side.key if isinstance(content, Image) and content.region is None else None


class TeacherVectors:
    """Vectors by text, or by picture.

    Args:
        path: parquet with the columns `text` or `picture` (string) and `vector` (list of numbers, all of one length),
            as `mllm-embed teach` writes it, and `mllm-embed embed` for texts; rows without a text are passed over.
        kind: which of them is wanted.

    Raises:
        DataFileError: no such file, or not of that kind.
    """

    def __init__(self, path: Path, kind: Kind = "text") -> None:
        try:
            if not {kind, "vector"} <= set(pq.read_schema(path).names):
                raise DataFileError(f"{path} is no file of a teacher's vectors: it lacks a column {kind} or vector")
            table = pq.read_table(path, columns=[kind, "vector"])
        except (OSError, pa.ArrowException) as error:
            raise DataFileError(f"{path} is no file of a teacher's vectors: {str(error).splitlines()[0]}") from None
        table = table.filter(pa.compute.is_valid(table[kind]))
        if not table.num_rows:
            raise DataFileError(f"{path} has no rows with a {kind}")
        rows = table["vector"].combine_chunks()
        widths = set(rows.value_lengths().to_pylist()) if not pa.types.is_fixed_size_list(rows.type) else {0}
        if len(widths) > 1 or rows.null_count:
            raise DataFileError(f"{path}: all vectors must have one length, but have {sorted(map(str, widths))[:4]}")
        values: Any = rows.flatten().to_numpy(zero_copy_only=False)
        self._vectors: NDArray[np.float32] = values.astype(np.float32).reshape(table.num_rows, -1)
        if not np.isfinite(self._vectors).all():
            raise DataFileError(f"{path} has vectors that are not finite")
        self._rows = {key: row for row, key in enumerate(table[kind].to_pylist())}
        self._path = path
        self._kind: Kind = kind

    def side(self, example: Example) -> tuple[Role, Side, NDArray[np.float32]]:
        """Return the side of an example that the teacher is asked about, and its vector of it, shape [T].

        The query, if it is one text (or one picture, for a teacher of those); else the positive.

        Raises:
            CorruptRow: neither is, or the teacher has no vector of it.
        """
        sides: tuple[tuple[Role, Side], ...] = (("query", example.query), ("target", example.positive))
        for role, side in sides:
            if (key := taught_key(side, self._kind)) is not None:
                return role, side, self[key]
        raise CorruptRow(f"neither its query nor its positive is a {self._kind}")

    def __getitem__(self, key: str) -> NDArray[np.float32]:
        """Return the vector of a text, or of a picture by its key, shape [T].

        Raises:
            CorruptRow: the file has none.
        """
        row = self._rows.get(key)
        if row is None:
            raise CorruptRow(f"{self._path} has no vector of the {self._kind} {key[:60]!r}")
        vector: NDArray[np.float32] = self._vectors[row]
        return vector
