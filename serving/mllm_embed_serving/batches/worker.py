"""Runs batches, one after the other, several lines at once; what is done stays done, whatever happens to the server."""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any

from mllm_embed.errors import BackendUnavailable, Overloaded
from mllm_embed_serving.batches.files import Files
from mllm_embed_serving.batches.jobs import Batch, Jobs, is_over
from mllm_embed_serving.batches.lines import Line, check, read_lines
from mllm_embed_serving.errors import UnknownObject

_LOG = logging.getLogger(__name__)
_AGAIN_S = 0.5
"""Seconds after which a line is tried again that met a busy or restarting engine."""
Answer = Callable[[dict[str, Any], str, str], Awaitable[tuple[int, dict[str, Any]]]]
"""Body, scope and request id -> status and body of the answer; raises what is worth another try."""


class BatchWorker:
    """Takes batches from the database, as long as there are any.

    Args:
        files: input and output files.
        jobs: the batches.
        answer: answers one line.
        concurrency: lines that are run at once.
        max_line_bytes: longest line.
    """

    def __init__(self, files: Files, jobs: Jobs, answer: Answer, *, concurrency: int, max_line_bytes: int) -> None:
        self._files = files
        self._jobs = jobs
        self._answer = answer
        self._concurrency = concurrency
        self._max_line_bytes = max_line_bytes
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def wake(self) -> None:
        """Work, if there is work to do."""
        if not self._stopped and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop working; lines under way are done anew after a restart."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        while (found := await asyncio.to_thread(self._jobs.next_open)) is not None:
            batch, scope = found
            try:
                await self._run(batch, scope)
            except Exception:  # noqa: BLE001  # one batch that fails must not stop those behind it
                _LOG.exception("batch %s failed", batch["id"])
                errors = [{"code": "server_error", "line": None, "message": "The server failed.", "param": None}]
                await asyncio.to_thread(self._fail, batch, errors)

    async def _run(self, batch: Batch, scope: str) -> None:
        """Bring a batch to its end, from wherever it stands."""
        try:
            path = self._files.path(self._files.get(batch["input_file_id"], scope))
        except UnknownObject:
            errors = [{"code": "file_not_found", "line": None, "message": "The input file is gone.", "param": None}]
            await asyncio.to_thread(self._fail, batch, errors)
            return
        if batch["status"] == "validating":
            total, errors = await asyncio.to_thread(check, path, self._max_line_bytes)
            if errors:
                await asyncio.to_thread(self._fail, batch, errors)
                return
            counts = {"total": total, "completed": 0, "failed": 0}
            batch = self._jobs.move(batch, "in_progress", request_counts=counts)
        if batch["status"] == "in_progress":
            done = await asyncio.to_thread(self._jobs.done, batch)
            # As many runners as lines at once take from one iterator, so a large file is never in memory.
            with closing(read_lines(path, done)) as lines:
                await asyncio.gather(*(self._run_lines(lines, batch, scope) for _ in range(self._concurrency)))
        await asyncio.to_thread(self._finish, batch, scope)

    async def _run_lines(self, lines: Iterator[Line], batch: Batch, scope: str) -> None:
        while self._is_going(batch, scope) and (line := next(lines, None)) is not None:
            request_id = f"batch_req_{secrets.token_hex(12)}"
            status, body = await self._answered(line, scope, request_id)
            output = {
                "id": request_id,
                "custom_id": line.custom_id,
                "response": {"status_code": status, "request_id": request_id, "body": body},
                "error": None,
            }
            await asyncio.to_thread(self._jobs.keep, batch, line.number, output, ok=status == 200)

    async def _answered(self, line: Line, scope: str, request_id: str) -> tuple[int, dict[str, Any]]:
        """Answer a line; an engine that is busy or restarting is waited for."""
        while True:
            try:
                return await self._answer(line.body, scope, request_id)
            except (Overloaded, BackendUnavailable):
                await asyncio.sleep(_AGAIN_S)

    def _is_going(self, batch: Batch, scope: str) -> bool:
        return not is_over(batch) and bool(self._jobs.get(batch["id"], scope)["status"] == "in_progress")

    def _fail(self, batch: Batch, errors: list[dict[str, Any]]) -> None:
        self._jobs.close(batch, "failed", errors={"object": "list", "data": errors})

    def _finish(self, batch: Batch, scope: str) -> None:
        """Write what there is into files: all of a batch that ran to its end, part of one that did not."""
        batch = self._jobs.move(batch, "finalizing")
        end = "cancelled" if batch["status"] == "cancelling" else "completed"
        counts = self._jobs.get(batch["id"], scope)["request_counts"]
        if end == "completed" and counts["completed"] + counts["failed"] < counts["total"]:
            end = "expired"
        self._jobs.close(
            batch,
            end,
            output_file_id=self._written(batch, scope, ok=True),
            error_file_id=self._written(batch, scope, ok=False),
        )

    def _written(self, batch: Batch, scope: str, *, ok: bool) -> str | None:
        name = f"{batch['id']}_{'output' if ok else 'error'}.jsonl"
        with tempfile.TemporaryFile() as stream:
            stream.writelines(self._jobs.outputs(batch, ok=ok))
            if stream.tell() == 0:
                return None
            stream.seek(0)
            return self._files.add(stream, scope=scope, name=name, purpose="batch_output").id
