"""Reads the files of public data sets: records with the fields that a schema names, pictures that are there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.model_dir import file_sha256
from mllm_embed.types import Image

Record = Mapping[str, Any]
_SHOWN = 5


class PublicFolder:
    """One folder as its makers publish it.

    Problems are collected, so that all of them are said at once.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._used: set[Path] = set()
        self._problems: list[str] = []

    def records(self, file: str, fields: Sequence[str]) -> list[Record]:
        """Return the records of a JSON list, JSON lines or parquet file; those that lack a field are a problem."""
        path = self.path / file
        if not path.is_file():
            self._problems.append(f"no file {file}")
            return []
        self._used.add(path)
        try:
            records = _READERS[path.suffix](path)
        except (ValueError, OSError) as error:
            self._problems.append(f"{file} cannot be read ({str(error).splitlines()[0]})")
            return []
        complete = []
        for place, record in enumerate(records):
            if missing := [field for field in fields if record.get(field) is None]:
                self._problems.append(f"{file}, record {place} lacks {', '.join(missing)}")
            else:
                complete.append(record)
        return complete

    def files(self, pattern: str) -> list[str]:
        """Return the names of the files that match a pattern, sorted."""
        found = sorted(str(path.relative_to(self.path)) for path in self.path.glob(pattern))
        if not found:
            self._problems.append(f"no file {pattern}")
        return found

    def image(self, file: str) -> Image:
        """Return a picture by its name in the folder; a missing one is a problem."""
        path = self.path / file
        if not path.is_file():
            self._problems.append(f"no picture {file}")
        return Image(path)

    def unique(self, names: Iterable[object], what: str) -> None:
        """Note a problem for every name that occurs twice."""
        seen: set[object] = set()
        for name in names:
            if name in seen:
                self._problems.append(f"{what} {name} occurs twice")
            seen.add(name)

    def check(self) -> None:
        """Raise `EvaluationError` with every problem found so far, the first few of each run of many."""
        if self._problems:
            distinct = list(dict.fromkeys(self._problems))
            more = f"; and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
            raise EvaluationError(f"{self.path} cannot be evaluated on: " + "; ".join(distinct[:_SHOWN]) + more)

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of every file of records that was read; pictures are in the digests of parts."""
        return {str(path.relative_to(self.path)): file_sha256(path) for path in sorted(self._used)}


def _json(path: Path) -> list[Record]:
    """Read a list of records, or an object of records, whose keys become the field `id`."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(data, dict) and all(isinstance(value, dict) for value in data.values()):
        return [{"id": key, **value} for key, value in data.items()]
    if isinstance(data, dict) and len(lists := [value for value in data.values() if isinstance(value, list)]) == 1:
        data = lists[0]  # `{"images": [...], "dataset": "flickr30k"}`
    if not isinstance(data, list) or not all(isinstance(record, dict) for record in data):
        raise ValueError("it holds no records")
    return data


def _json_lines(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _parquet(path: Path) -> list[Record]:
    import pyarrow.parquet as pq

    records: list[Record] = pq.read_table(path).to_pylist()
    return records


_READERS: dict[str, Callable[[Path], list[Record]]] = {".json": _json, ".jsonl": _json_lines, ".parquet": _parquet}
