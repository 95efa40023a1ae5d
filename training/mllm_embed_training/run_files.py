"""Files of a run directory: lines that survive a kill in the middle of one, directories written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONFIG, RECORD, EXAMPLES = "config.json", "run.json", "examples.json"
"""What a run was started with: its recipe; versions, machine and data; some of its examples."""
METRICS, HELDOUT, CORRUPT = "metrics.jsonl", "heldout.jsonl", "corrupt.jsonl"
"""What it did: a line per step, per measurement, per corrupt row."""
CURVES, HELDOUT_CURVES, REPORT, BOARD = "curves.png", "heldout.png", "report.html", "tensorboard"
"""What shows it."""
UNFINISHED, REPLACED = ".unfinished-", ".replaced-"
"""How directories are called that a kill may leave behind."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file, none if it is absent; a line that was cut off counts for nothing."""
    if not path.exists():
        return []
    found: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break  # a kill or a full disk came in the middle; nothing was written after it
    return found


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put the objects in place of a JSON-lines file, whole or not at all."""
    write_file(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def write_file(path: Path, content: str | bytes) -> None:
    """Put content in place of a file's, whole or not at all; texts are UTF-8."""
    unfinished = path.with_name(UNFINISHED + path.name)
    try:
        unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def forget(path: Path, first: int) -> None:
    """Drop the lines of steps from `first` on, which are about to be repeated."""
    if path.exists():
        write_lines(path, [row for row in read_lines(path) if row["step"] < first])


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give a hidden directory to fill; on success it becomes `target`, durably; on failure it is removed."""
    unfinished = target.with_name(UNFINISHED + target.name)
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a killed process
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for path in [*unfinished.rglob("*"), unfinished]:
            _flush(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if target.exists():
        replaced = target.with_name(REPLACED + target.name)
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
        unfinished.rename(target)
        shutil.rmtree(replaced)
    else:
        unfinished.rename(target)
    _flush(target.parent)


def _flush(path: Path) -> None:
    """Wait until a file's or directory's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
