"""A teacher's vectors, computed once and kept in a file: any text embedder can teach, and training needs none of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mllm_embed.tasks import Role
from mllm_embed.types import Text
from mllm_embed_training.errors import CorruptRow, DataFileError
from mllm_embed_training.examples import Example, Side


def taught_side(example: Example) -> tuple[Role, Side]:
    """Return the one text of an example that a teacher knows: the query's if it is a text, else the positive's.

    Raises:
        CorruptRow: neither is a text.
    """
    sides: tuple[tuple[Role, Side], ...] = (("query", example.query), ("target", example.positive))
    for role, side in sides:
        if len(side.content) == 1 and isinstance(side.content[0], Text):
            return role, side
    raise CorruptRow("neither its query nor its positive is a text")


class TeacherVectors:
    """Vectors by text.

    Args:
        path: parquet with the columns `text` (string) and `vector` (list of numbers, all of one length), as
            `mllm-embed embed` and `mllm-embed teach` write it; rows without a text are passed over.

    Raises:
        DataFileError: no such file, or not of that kind.
    """

    def __init__(self, path: Path) -> None:
        try:
            table = pq.read_table(path, columns=["text", "vector"])
        except (OSError, pa.ArrowException) as error:
            raise DataFileError(f"{path} is no file of a teacher's vectors: {str(error).splitlines()[0]}") from None
        table = table.filter(pa.compute.is_valid(table["text"]))
        if not table.num_rows:
            raise DataFileError(f"{path} has no rows with a text")
        rows = table["vector"].combine_chunks()
        widths = set(rows.value_lengths().to_pylist()) if not pa.types.is_fixed_size_list(rows.type) else {0}
        if len(widths) > 1 or rows.null_count:
            raise DataFileError(f"{path}: all vectors must have one length, but have {sorted(map(str, widths))[:4]}")
        values: Any = rows.flatten().to_numpy(zero_copy_only=False)
        self._vectors: NDArray[np.float32] = values.astype(np.float32).reshape(table.num_rows, -1)
        if not np.isfinite(self._vectors).all():
            raise DataFileError(f"{path} has vectors that are not finite")
        self._rows = {text: row for row, text in enumerate(table["text"].to_pylist())}
        self._path = path

    def __getitem__(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a text, shape [T].

        Raises:
            CorruptRow: the file has none.
        """
        row = self._rows.get(text)
        if row is None:
            raise CorruptRow(f"{self._path} has no vector of the text {text[:60]!r}")
        vector: NDArray[np.float32] = self._vectors[row]
        return vector
