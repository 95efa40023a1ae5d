"""Files that callers upload and that batches make: rows in the database, contents beside it. All methods block."""

from __future__ import annotations

import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from mllm_embed_serving.batches.database import Database
from mllm_embed_serving.errors import InvalidParameter, UnknownObject
from mllm_embed_serving.fields import shown

KEPT_S = 30 * 86_400
"""Seconds for which files are kept."""
_COLUMNS = "id, scope, name, purpose, bytes, created, expires"


@dataclass(frozen=True)
class StoredFile:
    """One file.

    Attributes:
        id: its id.
        scope: whose it is.
        name: what the caller calls it.
        purpose: `batch` or `batch_output`.
        bytes: its length.
        created: when it was made, in Unix seconds.
        expires: when it will be deleted, in Unix seconds.
    """

    id: str
    scope: str
    name: str
    purpose: str
    bytes: int
    created: int
    expires: int

    def to_json(self) -> dict[str, Any]:
        """Return OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created,
            "expires_at": self.expires,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


class Files:
    """The files of all callers; each sees only their own.

    Args:
        database: where they are kept.
        max_bytes: bytes that all of them may take together.
    """

    def __init__(self, database: Database, max_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._sweep()

    def add(self, source: IO[bytes], *, scope: str, name: str, purpose: str) -> StoredFile:
        """Keep a file, read from where `source` stands.

        Raises:
            InvalidParameter: there is no room for it.
        """
        self._sweep()
        new = f"file-{secrets.token_hex(12)}"
        path = self._database.contents / new
        try:
            with path.open("xb") as target:
                shutil.copyfileobj(source, target)
            size, now = path.stat().st_size, int(time.time())
            used: int = self._database.rows("SELECT coalesce(sum(bytes), 0) FROM files")[0][0]
            if used + size > self._max_bytes:
                raise InvalidParameter(
                    f"has {size} bytes, but of the {self._max_bytes} for all files {self._max_bytes - used} are free: "
                    "delete some",
                    param="file",
                )
            file = StoredFile(new, scope, name, purpose, size, now, now + KEPT_S)
            with self._database.transaction() as database:
                database.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", tuple(asdict(file).values()))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return file

    def get(self, file_id: str, scope: str, param: str | None = None) -> StoredFile:
        """Return a caller's file.

        Raises:
            UnknownObject: there is none by that id, or it is somebody else's.
        """
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM files WHERE id = ? AND scope = ?", file_id, scope)  # noqa: S608  # our own names
        if not rows:
            raise UnknownObject(f"there is no file {shown(file_id)}", param=param)
        return StoredFile(*rows[0])

    def all(self, scope: str) -> list[StoredFile]:
        """Return a caller's files, newest first."""
        query = f"SELECT {_COLUMNS} FROM files WHERE scope = ? ORDER BY created DESC, rowid DESC"  # noqa: S608  # our own names
        return [StoredFile(*row) for row in self._database.rows(query, scope)]

    def path(self, file: StoredFile) -> Path:
        """Return where a file's content is."""
        return self._database.contents / file.id

    def delete(self, file: StoredFile) -> None:
        """Delete a file."""
        with self._database.transaction() as database:
            database.execute("DELETE FROM files WHERE id = ?", (file.id,))
        self.path(file).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Delete what has expired, and contents that a crash left without their row."""
        with self._database.transaction() as database:
            database.execute("DELETE FROM files WHERE expires <= ?", (int(time.time()),))
        known = {row[0] for row in self._database.rows("SELECT id FROM files")}
        for path in self._database.contents.iterdir():
            if path.name not in known and time.time() - path.stat().st_mtime > 3600:  # younger: being written
                path.unlink(missing_ok=True)
