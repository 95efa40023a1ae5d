"""Reads an evaluation folder of parquet files, and says precisely what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.model_dir import file_sha256

DATA_VARIABLE = "MLLM_EMBED_DATA"
Row = dict[str, Any]


def find_data(folder: Path | None) -> Path:
    """Return the data folder: the option, else the environment variable `MLLM_EMBED_DATA`.

    Raises:
        EvaluationError: neither names a folder.
    """
    name = folder if folder is not None else os.environ.get(DATA_VARIABLE)
    if not name:
        raise EvaluationError(
            f"the held-out suite needs its data: give --data DIR or set {DATA_VARIABLE} to the folder"
        )
    path = Path(name)
    if not path.is_dir():
        raise EvaluationError(f"there is no data folder {path}; give --data DIR or set {DATA_VARIABLE}")
    return path


class DataFolder:
    """Parquet files of one folder, each read once.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, list[Row]] = {}
        self._used: set[Path] = set()

    def check(self, needs: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Check that files and columns are there before anything is computed.

        Args:
            needs: pairs of a file pattern and the columns that will be read.

        Raises:
            EvaluationError: lists every missing or unreadable file and every missing column at once.
        """
        problems = sorted({problem for pattern, columns in needs for problem in self._problems(pattern, columns)})
        if problems:
            raise EvaluationError(f"{self.path} cannot be evaluated on: " + "; ".join(problems))

    def rows(self, pattern: str, columns: Sequence[str]) -> list[Row]:
        """Return all rows of the files that match `pattern`, in the order of file names, with these columns."""
        import pyarrow.parquet as pq

        key = f"{pattern} {','.join(columns)}"
        if key not in self._rows:
            self.check([(pattern, columns)])
            files = sorted(self.path.glob(pattern))
            self._used.update(files)
            self._rows[key] = [row for file in files for row in pq.read_table(file, columns=list(columns)).to_pylist()]
        return self._rows[key]

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of every file read so far, by name."""
        return {file.name: file_sha256(file) for file in sorted(self._used)}

    def _problems(self, pattern: str, columns: Sequence[str]) -> list[str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = sorted(self.path.glob(pattern))
        if not files:
            return [f"no file {pattern}"]
        problems = []
        for file in files:
            try:
                present = set(pq.read_schema(file).names)
            except (pa.ArrowException, OSError) as error:
                problems.append(f"{file.name} is not readable parquet ({str(error).splitlines()[0]})")
                continue
            if missing := [column for column in columns if column not in present]:
                problems.append(f"{file.name} lacks {', '.join(missing)}")
        return problems
