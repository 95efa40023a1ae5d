"""Files of rows, opened for reading at random: the plan asks for any row at any time, and resuming needs no replay.

.jsonl            one JSON object per line; offsets of the lines are found once, lines are read when asked for
.parquet, .arrow  columns; parquet is written out once as an Arrow file beside the run and mapped into memory
.csv, .tsv        columns with a header line
.tar              webdataset shards: files that share the name up to the first dot are one row
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mllm_embed_training.errors import CorruptRow, DataFileError

Row = dict[str, Any]


class Rows(ABC):
    """The rows of one file."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Row:
        """Return a row.

        Raises:
            CorruptRow: it cannot be read.
        """


class JsonLines(Rows):
    """Lines of a .jsonl file; blank ones are no rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spans = _line_spans(path)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> Row:
        start, stop = (int(place) for place in self._spans[index])
        with self._path.open("rb") as file:
            file.seek(start)
            line = file.read(stop - start)
        try:
            row = json.loads(line)
        except ValueError as error:
            raise CorruptRow(f"it is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise CorruptRow(f"it must be a JSON object, but is {type(row).__name__}")
        return row


class Columns(Rows):
    """An Arrow table, mapped into memory or read."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> Row:
        row: Row = self._table.slice(index, 1).to_pylist()[0]
        return row


class Shard(Rows):
    """A webdataset shard: an uncompressed tar whose members are found once and read when asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._samples = _samples(path)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Row:
        """Return the sample's files by extension: .json parsed, .txt and .cls as text, others as bytes."""
        key, members = self._samples[index]
        row: Row = {"__key__": key}
        with self._path.open("rb") as file:
            for extension, (start, size) in members.items():
                file.seek(start)
                row[extension] = _member(extension, file.read(size))
        return row


class Chained(Rows):
    """Several files as one."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = parts
        self._ends = np.array(list(accumulate(len(part) for part in parts)), dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Row:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part][index - (int(self._ends[part - 1]) if part else 0)]


def open_rows(pattern: str, cache: Path) -> Rows:
    """Open all files that a path or glob pattern names, in the order of their names, as one.

    Args:
        pattern: a file, or a pattern such as `shards/*.tar`.
        cache: folder for what is derived from parquet files; reused while the file is unchanged.

    Raises:
        DataFileError: no such file, a format that is not read, a file that cannot be read, or no rows.
    """
    parts = [_open_one(path, cache) for path in find_files(pattern)]
    rows = parts[0] if len(parts) == 1 else Chained(parts)
    if len(rows) == 0:
        raise DataFileError(f"{pattern} has no rows")
    return rows


def find_files(pattern: str) -> list[Path]:
    """Return the files that a path or glob pattern names, sorted.

    Raises:
        DataFileError: there is none.
    """
    path = Path(pattern)
    found = [path] if path.is_file() else sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    files = [file for file in found if file.is_file()]
    if not files:
        raise DataFileError(f"there is no file {pattern}")
    return files


def _open_one(path: Path, cache: Path) -> Rows:
    readers = {
        ".jsonl": JsonLines,
        ".parquet": lambda path: Columns(_mapped(path, cache)),
        ".arrow": lambda path: Columns(_map(path)),
        ".csv": lambda path: Columns(pyarrow.csv.read_csv(path)),
        ".tsv": lambda path: Columns(
            pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter="\t"))
        ),
        ".tar": Shard,
    }
    if path.suffix not in readers:
        raise DataFileError(f"{path} must be one of {', '.join(readers)}")
    try:
        opened: Rows = readers[path.suffix](path)
    except (OSError, pa.ArrowException, tarfile.TarError) as error:
        raise DataFileError(f"{path} cannot be read: {error}") from None
    return opened


def _line_spans(path: Path) -> NDArray[np.int64]:
    """Return begin and end of every line that is not blank, int64 [N, 2]."""
    spans = []
    with path.open("rb") as file:
        start = 0
        for line in file:
            if line.strip():
                spans.append((start, start + len(line)))
            start += len(line)
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


def _mapped(path: Path, cache: Path) -> pa.Table:
    """Return a parquet file's rows as an Arrow file mapped into memory: any row in microseconds, nothing held."""
    made = path.stat()
    digest = hashlib.sha256(f"{path.resolve()}|{made.st_size}|{made.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache / f"{path.stem}-{digest}.arrow"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}.unfinished")
        source = pq.ParquetFile(path)
        with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, source.schema_arrow) as writer:
            for batch in source.iter_batches(batch_size=1024):
                writer.write_batch(batch)
        unfinished.rename(target)
    return _map(target)


def _map(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _read_csv(path: Path, delimiter: str) -> pa.Table:
    return pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter))


def _samples(path: Path) -> list[tuple[str, dict[str, tuple[int, int]]]]:
    """Return each sample's key, and its members' places by extension."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, dot, extension = name.partition(".")
            if member.isfile() and dot:
                places = samples.setdefault(f"{folder}/{stem}" if folder else stem, {})
                places[extension.lower()] = (member.offset_data, member.size)
    return list(samples.items())


def _member(extension: str, data: bytes) -> Any:
    last = extension.rpartition(".")[2]
    try:
        if last == "json":
            return json.loads(data)
        return data.decode() if last in ("txt", "cls") else data
    except ValueError as error:
        raise CorruptRow(f"its .{extension} cannot be read ({error})") from None
