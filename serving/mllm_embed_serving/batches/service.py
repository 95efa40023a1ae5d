"""Files and batches of one server, opened from its folder."""

from __future__ import annotations

from typing import Any

from mllm_embed.errors import BackendUnavailable, MllmEmbedError, Overloaded
from mllm_embed_serving.batches.database import Database
from mllm_embed_serving.batches.files import Files
from mllm_embed_serving.batches.jobs import Jobs
from mllm_embed_serving.batches.worker import BatchWorker
from mllm_embed_serving.errors import UnknownRoute, error_body, find_answer
from mllm_embed_serving.schemas import openai
from mllm_embed_serving.service import Service


class BatchService:
    """What the routes of files and batches share. It is opened with the server, and finds what an earlier one left.

    Args:
        service: the served model; its settings say where files and batches are kept, if they are offered.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._parts: tuple[Database, Files, Jobs, BatchWorker] | None = None
        settings = service.settings
        if settings.batch_folder is None:
            return
        database = Database(settings.batch_folder)
        files, jobs = Files(database, settings.max_stored_bytes), Jobs(database)
        worker = BatchWorker(
            files,
            jobs,
            self._answer,
            concurrency=settings.batch_concurrency,
            max_line_bytes=settings.max_body_bytes,
        )
        self._parts = database, files, jobs, worker

    @property
    def files(self) -> Files:
        """The files; raises `UnknownRoute` if they are not offered."""
        return self._offered()[1]

    @property
    def jobs(self) -> Jobs:
        """The batches; raises `UnknownRoute` if they are not offered."""
        return self._offered()[2]

    def wake(self) -> None:
        """Work on what there is to do, from inside the server's event loop."""
        if self._parts is not None:
            self._parts[3].wake()

    async def aclose(self) -> None:
        """Stop working, and close the database."""
        if self._parts is not None:
            await self._parts[3].stop()
            self._parts[0].close()

    def _offered(self) -> tuple[Database, Files, Jobs, BatchWorker]:
        if self._parts is None:
            raise UnknownRoute("files and batches are off: this server was started without --batch-dir")
        return self._parts

    async def _answer(self, body: dict[str, Any], scope: str, request_id: str) -> tuple[int, dict[str, Any]]:
        """Answer one line as its route would.

        Raises:
            BackendUnavailable: the engine is restarting.
            Overloaded: it is full.
        """
        service, name_item = self._service, None
        try:
            model = service.named_model(body)
            items = openai.select_items(body, service.settings.max_items)
            name_item = items.paths.__getitem__
            asked = openai.parse_request(body, items, service.reader, service.settings)
            embed = model.front.embed_each if asked.partial else model.front.embed
            with model.in_use():
                outcomes = await embed(asked.wanted, scope)
        except (BackendUnavailable, Overloaded):
            raise
        except MllmEmbedError as error:
            return find_answer(error).status, error_body(error, request_id, name_item)

        def describe(error: Exception) -> dict[str, Any]:
            described: dict[str, Any] = error_body(error, request_id, name_item)["error"]
            return described

        return 200, openai.response_body(asked, outcomes, model.name, describe)
