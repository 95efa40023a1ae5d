"""The data set and the corpus, read once and hashed; what is wrong in them is told all at once."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from mllm_embed.tasks import Task
from mllm_embed_training.data_files.schemas import SCHEMAS, SIDE_KEYS, Fields, ReadPicture, make_side, read_picture
from mllm_embed_training.data_files.stores import find_files, open_rows
from mllm_embed_training.errors import CorruptRow, DataFileError
from mllm_embed_training.examples import Side
from mllm_embed_training.mining.items import Item, RowFile

T = TypeVar("T")
_CORPUS_KEYS = frozenset({*SIDE_KEYS, "content", "id"})
_REASONS_SHOWN, _ROWS_SHOWN = 10, 5


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of the data set.

    Attributes:
        query: what is asked.
        positives: its right answers, at least one.
        negatives: wrong ones that the row brings along.
        task: instructions by role, the row's own or the run's.
        extra: `id`, `task` and `grades` of the row, as far as it has them: they are passed on.
    """

    query: Item
    positives: tuple[Item, ...]
    negatives: tuple[Item, ...]
    task: Task
    extra: Mapping[str, Any]

    def items(self) -> tuple[Item, ...]:
        """Return all sides, the query first."""
        return (self.query, *self.positives, *self.negatives)


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that cannot be used: its file, its index and why."""

    file: Path
    row: int
    reason: str


def open_pairs(path: Path, *, schema: str, images: Path | None, cache: Path) -> RowFile:
    """Open a data set in one of the formats and schemas that training reads.

    Args:
        path: a file or a glob pattern.
        schema: one of `SCHEMAS`.
        images: folder that picture paths are relative to; default: the file's own.
        cache: folder for what is derived from parquet files.

    Raises:
        DataFileError: no such file, an unknown format, or no rows.
    """

    def sides(row: Mapping[str, Any], picture: ReadPicture) -> Sequence[Side]:
        return _all_sides(_fields(schema, row, picture))

    return RowFile(path, open_rows(str(path), cache), images or find_files(str(path))[0].parent, sides)


def _fields(schema: str, row: Mapping[str, Any], picture: ReadPicture) -> Fields:
    """Read a row; whatever its schema draws, it draws the same each time."""
    return SCHEMAS[schema](row, picture, random.Random(0))


def _all_sides(fields: Fields) -> Sequence[Side]:
    return (fields.query, *fields.positives, *fields.negatives)


def open_corpus(path: Path, *, images: Path | None, cache: Path) -> RowFile:
    """Open a corpus: rows with `text`, `image` or `video`, or with `content`, a list of such parts; `id` is not used.

    Raises:
        DataFileError: no such file, an unknown format, or no rows.
    """
    return RowFile(path, open_rows(str(path), cache), images or find_files(str(path))[0].parent, _corpus_sides)


def _corpus_sides(row: Mapping[str, Any], picture: ReadPicture) -> Sequence[Side]:
    if unknown := sorted(set(row) - _CORPUS_KEYS):
        raise CorruptRow(f"it has the unknown field {unknown[0]!r}; known are {', '.join(sorted(_CORPUS_KEYS))}")
    if row.get("content") is not None:
        return [make_side(row["content"], picture)]
    return [make_side({key: row[key] for key in SIDE_KEYS if key in row}, picture)]


def read_pairs(file: RowFile, schema: str, task: Task, console: Console) -> tuple[list[Pair], list[Fault]]:
    """Hash every row of the data set.

    Args:
        file: from `open_pairs`.
        schema: the same as there.
        task: instructions of rows that give none.
        console: shows the progress.

    Returns:
        the rows that can be used, and the others.
    """
    picture = read_picture(file.images)

    def read(row: int) -> Pair:
        raw = file.rows[row]
        fields = _fields(schema, raw, picture)
        items, last = file.items(row, _all_sides(fields)), 1 + len(fields.positives)
        own = {"id": raw.get("id"), "task": fields.task, "grades": list(fields.grades) or None}
        extra = {key: value for key, value in own.items() if value is not None}
        return Pair(items[0], items[1:last], items[last:], fields.instructions(task), extra)

    return _read_all(file, read, f"reading {file.path.name}", console)


def read_corpus(file: RowFile, console: Console) -> tuple[list[Item], list[Fault]]:
    """Hash every entry of a corpus; return those that can be used, and the others."""
    picture = read_picture(file.images)

    def read(row: int) -> Item:
        return file.items(row, file.sides(file.rows[row], picture))[0]

    return _read_all(file, read, f"reading {file.path.name}", console)


def _read_all(file: RowFile, read: Callable[[int], T], title: str, console: Console) -> tuple[list[T], list[Fault]]:
    good: list[T] = []
    faults: list[Fault] = []
    for row in track(range(len(file.rows)), title, console=console):
        try:
            good.append(read(row))
        except CorruptRow as error:
            faults.append(Fault(file.path, row, str(error)))
    return good, faults


def refuse(faults: Sequence[Fault], what: str, remedy: str) -> None:
    """Raise one error that counts the faults and lists them, equal reasons together; do nothing if there are none.

    Args:
        faults: of one or several files.
        what: what is wrong with them all, after "12 rows".
        remedy: what the user can do.

    Raises:
        DataFileError: there are faults.
    """
    if not faults:
        return
    rows: dict[tuple[Path, str], list[int]] = defaultdict(list)
    for fault in faults:
        rows[fault.file, fault.reason].append(fault.row + 1)
    shown = [f"{_numbers(found)} of {file}: {reason}" for (file, reason), found in rows.items()]
    more = f"; and {len(shown) - _REASONS_SHOWN} more reasons" if len(shown) > _REASONS_SHOWN else ""
    count = "1 row" if len(faults) == 1 else f"{len(faults):,} rows"
    raise DataFileError(f"{count} {what}: {'; '.join(shown[:_REASONS_SHOWN])}{more}. {remedy}")


def _numbers(rows: Sequence[int]) -> str:
    listed = ", ".join(str(row) for row in rows[:_ROWS_SHOWN])
    more = f" and {len(rows) - _ROWS_SHOWN:,} more" if len(rows) > _ROWS_SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} {listed}{more}"
