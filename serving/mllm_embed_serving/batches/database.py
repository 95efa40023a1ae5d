"""The SQLite file under files and batches: its tables, and one connection for all threads."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mllm_embed_serving.invalid_settings import InvalidSettings

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY, scope TEXT NOT NULL, name TEXT NOT NULL, purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY, scope TEXT NOT NULL, status TEXT NOT NULL, document TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS results (
    batch TEXT NOT NULL, line INTEGER NOT NULL, ok INTEGER NOT NULL, output TEXT NOT NULL, PRIMARY KEY (batch, line)
) WITHOUT ROWID;
"""


class Database:
    """A folder with a database and the contents of files.

    Args:
        folder: where it is, or is made; readable by its owner only. One server at a time may use it.

    Attributes:
        contents: the folder of the files' contents.

    Raises:
        InvalidSettings: the folder cannot be used, or another server uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.contents = folder / "files"
        self._lock = threading.RLock()
        try:
            self.contents.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                folder / "batches.sqlite", check_same_thread=False, isolation_level=None, timeout=0.1
            )
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # two servers would do every batch twice
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise InvalidSettings(f"the batch folder {folder} cannot be used: {error}") from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do several things or none."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Close the file; calling it twice is harmless."""
        with self._lock:
            self._connection.close()
