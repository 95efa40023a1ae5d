"""Results on disk, in one SQLite file within a budget of bytes; what was not used for longest makes room."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mllm_embed_serving.invalid_settings import InvalidSettings

_LOG = logging.getLogger(__name__)
FILE = "results.sqlite"
_MADE_ROOM = 0.9
"""Share of the budget that is left filled when room is made, so that this is not done for every entry."""


class DiskStore:
    """A file of results, for any number of threads of this process.

    Several servers may share the folder: SQLite's write-ahead log lets them read while one writes.

    Args:
        folder: where the file is, or is made; readable by its owner only.
        max_bytes: bytes that the values may take together.

    Raises:
        InvalidSettings: the folder cannot be written, or holds another kind of file by that name.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = sqlite3.connect(folder / FILE, check_same_thread=False, timeout=30, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, value BLOB NOT NULL, used REAL NOT NULL)"
                " WITHOUT ROWID"
            )
            self._database.execute("CREATE INDEX IF NOT EXISTS by_use ON results (used)")
            self._bytes: int = self._one("SELECT coalesce(sum(length(value)), 0) FROM results")
        except (OSError, sqlite3.Error) as error:
            raise InvalidSettings(f"the cache folder {folder} cannot be used: {error}") from None

    def get(self, key: bytes) -> bytes | None:
        """Return what was put under a key, if it is still there, and remember its use."""
        with self._lock, _reported():
            found: bytes | None = self._one("SELECT value FROM results WHERE key = ?", key)
            if found is not None:
                self._database.execute("UPDATE results SET used = ? WHERE key = ?", (time.time(), key))
            return found
        return None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value; a full disk costs the entry, not the request."""
        with self._lock, _reported():
            new = self._database.execute("INSERT OR IGNORE INTO results VALUES (?, ?, ?)", (key, value, time.time()))
            self._bytes += len(value) * new.rowcount
            if self._bytes > self._max_bytes:
                self._make_room()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _make_room(self) -> None:
        """Drop what was not used for longest, in one pass over as many rows as must go."""
        last, excess = 0.0, self._bytes - self._max_bytes * _MADE_ROOM
        for used, size in self._database.execute("SELECT used, length(value) FROM results ORDER BY used"):
            last, excess = used, excess - size
            if excess <= 0:
                break
        self._database.execute("DELETE FROM results WHERE used <= ?", (last,))
        self._bytes = self._one("SELECT coalesce(sum(length(value)), 0) FROM results")

    def _one(self, query: str, *values: object) -> Any:
        row = self._database.execute(query, values).fetchone()
        return None if row is None else row[0]


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Log what the disk refuses: results are computed anew then, and requests go on."""
    try:
        yield
    except sqlite3.Error as error:
        _LOG.warning("the cache on disk: %s", error)
