"""Reads one file of records, JSON or parquet; pictures in parquet go to disk, since they need not fit in memory."""

from __future__ import annotations

import atexit
import gzip
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
Reader = Callable[[Path, Sequence[str], Sequence[str], "Spill"], list[Record]]
"""File, fields, those of them that are pictures, and where pictures go -> records."""
_ROWS, _PICTURES = 4096, 16
"""Rows of a parquet file that are decoded at a time, without and with pictures."""


class Spill:
    """A temporary folder for pictures, made when the first comes, removed when the process ends."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    def keep(self, source: Path, name: str, picture: bytes) -> Path:
        """Write one picture of a file under a name that no other of the file has, and return where it lies."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="mllm-embed-pictures-"))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        folder = self._folder / hashlib.sha256(str(source).encode()).hexdigest()[:16]
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_bytes(picture)
        return path


def _json(path: Path, fields: Sequence[str], pictures: Sequence[str], spill: Spill) -> list[Record]:
    """Read a list of records, or an object of records, whose keys become the field `id`."""
    del fields, pictures, spill
    data = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(data, dict) and all(isinstance(value, dict) for value in data.values()):
        return [{"id": key, **value} for key, value in data.items()]
    return _checked(data.get("images") if isinstance(data, dict) else data)  # `{"images": [...], "dataset": "coco"}`


def _json_lines(path: Path, fields: Sequence[str], pictures: Sequence[str], spill: Spill) -> list[Record]:
    del fields, pictures, spill
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return _checked([json.loads(line) for line in text.decode("utf-8").split("\n") if line.strip()])


def _checked(data: object) -> list[Record]:
    if not isinstance(data, list) or not all(isinstance(record, dict) for record in data):
        raise ValueError("it holds no records")
    return data


def _parquet(path: Path, fields: Sequence[str], pictures: Sequence[str], spill: Spill) -> list[Record]:
    """Read the columns that are there; pictures as the datasets library writes them: bytes and a path."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        columns = [field for field in fields if field in file.schema_arrow.names]
        records: list[dict[str, Any]] = []
        for batch in file.iter_batches(_PICTURES if pictures else _ROWS, columns=columns):
            for record in batch.to_pylist():
                for column in set(pictures) & set(columns):
                    cell = record[column]
                    picture = cell.get("bytes") if isinstance(cell, dict) else cell
                    name = f"{path.stem} {column} {len(records)}"
                    record[column] = spill.keep(path, name, picture) if picture else None
                records.append(record)
    return list(records)


READERS: dict[str, Reader] = {".json": _json, ".jsonl": _json_lines, ".gz": _json_lines, ".parquet": _parquet}
"""How a file is read, by the ending of its name."""
