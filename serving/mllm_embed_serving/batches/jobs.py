"""Batches and the results of their lines. All methods block."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from mllm_embed_serving.batches.database import Database
from mllm_embed_serving.errors import UnknownObject
from mllm_embed_serving.fields import shown

WINDOW_S = 86_400
"""Seconds after which a batch that is not finished expires."""
OPEN = ("validating", "in_progress", "finalizing", "cancelling")
"""States of batches on which there is work to do."""
_TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
Batch = dict[str, Any]
"""OpenAI's batch object."""


def is_over(batch: Batch) -> bool:
    """Return whether a batch's time is over."""
    return bool(time.time() >= batch["expires_at"])


class Jobs:
    """The batches of all callers.

    Args:
        database: where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, *, scope: str, input_file_id: str, endpoint: str, metadata: dict[str, str] | None) -> Batch:
        """Take a batch in."""
        now = int(time.time())
        batch: Batch = {
            "id": f"batch_{secrets.token_hex(12)}",
            "object": "batch",
            "endpoint": endpoint,
            "errors": None,
            "input_file_id": input_file_id,
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + WINDOW_S,
            **{f"{state}_at": None for state in _TIMES},
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": metadata,
        }
        with self._database.transaction() as database:
            row = (batch["id"], scope, batch["status"], json.dumps(batch))
            database.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", row)
        return batch

    def get(self, batch_id: str, scope: str) -> Batch:
        """Return a caller's batch as it stands.

        Raises:
            UnknownObject: there is none by that id, or it is somebody else's.
        """
        rows = self._database.rows("SELECT document FROM batches WHERE id = ? AND scope = ?", batch_id, scope)
        if not rows:
            raise UnknownObject(f"there is no batch {shown(batch_id)}", param="batch_id")
        return self._counted(json.loads(rows[0][0]))

    def all(self, scope: str) -> list[Batch]:
        """Return a caller's batches, newest first."""
        rows = self._database.rows("SELECT document FROM batches WHERE scope = ? ORDER BY rowid DESC", scope)
        return [self._counted(json.loads(row[0])) for row in rows]

    def next_open(self) -> tuple[Batch, str] | None:
        """Return the oldest batch with work to do, and whose it is."""
        marks = ", ".join("?" * len(OPEN))
        query = f"SELECT document, scope FROM batches WHERE status IN ({marks}) ORDER BY rowid LIMIT 1"  # noqa: S608  # our own marks
        rows = self._database.rows(query, *OPEN)
        return (json.loads(rows[0][0]), rows[0][1]) if rows else None

    def move(self, batch: Batch, status: str, **changes: Any) -> Batch:
        """Bring a batch into another state; one that is being cancelled goes nowhere but to its end."""
        with self._database.transaction() as database:
            row = database.execute("SELECT document FROM batches WHERE id = ?", (batch["id"],)).fetchone()
            current: Batch = json.loads(row[0])
            if current["status"] not in OPEN or (current["status"] == "cancelling" and status in OPEN):
                return current
            moved = {**current, **changes, "status": status, f"{status}_at": int(time.time())}
            update = (status, json.dumps(moved), batch["id"])
            database.execute("UPDATE batches SET status = ?, document = ? WHERE id = ?", update)
        return moved

    def keep(self, batch: Batch, line: int, output: dict[str, Any], *, ok: bool) -> None:
        """Keep what a line gave; from now on it is done, whatever happens to the server."""
        with self._database.transaction() as database:
            row = (batch["id"], line, int(ok), json.dumps(output))
            database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", row)

    def done(self, batch: Batch) -> set[int]:
        """Return the lines that are done."""
        return {row[0] for row in self._database.rows("SELECT line FROM results WHERE batch = ?", batch["id"])}

    def outputs(self, batch: Batch, *, ok: bool) -> Iterator[bytes]:
        """Yield the output lines that succeeded, or those that failed, in the order of the input."""
        query = "SELECT line, output FROM results WHERE batch = ? AND ok = ? AND line > ? ORDER BY line LIMIT 100"
        last = 0
        while rows := self._database.rows(query, batch["id"], int(ok), last):
            yield from (output.encode("ascii") + b"\n" for _, output in rows)
            last = rows[-1][0]

    def close(self, batch: Batch, status: str, **changes: Any) -> None:
        """Bring a batch to its end; its results are in files by now."""
        counts = self._counted(batch)["request_counts"]
        self.move(batch, status, request_counts=counts, **changes)
        with self._database.transaction() as database:
            database.execute("DELETE FROM results WHERE batch = ?", (batch["id"],))

    def _counted(self, batch: Batch) -> Batch:
        """Return a batch with the counts of this moment, while there is work to do on it."""
        if batch["status"] not in OPEN:
            return batch
        rows = dict(self._database.rows("SELECT ok, count(*) FROM results WHERE batch = ? GROUP BY ok", batch["id"]))
        counts = {**batch["request_counts"], "completed": rows.get(1, 0), "failed": rows.get(0, 0)}
        return {**batch, "request_counts": counts}
