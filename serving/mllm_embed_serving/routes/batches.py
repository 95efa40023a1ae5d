"""OpenAI's /v1/batches, for embeddings."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from mllm_embed_serving import fields
from mllm_embed_serving import openapi_answers as answers
from mllm_embed_serving.batches.lines import ENDPOINT
from mllm_embed_serving.batches.service import BatchService
from mllm_embed_serving.errors import InvalidParameter
from mllm_embed_serving.openapi import BATCH_CREATE, PAGE_OF_BATCHES
from mllm_embed_serving.paging import page
from mllm_embed_serving.responses import AsciiJSONResponse
from mllm_embed_serving.schemas.common import read_json
from mllm_embed_serving.service import caller_of


def build(batches: BatchService) -> APIRouter:
    """Return the routes for one service."""
    router = APIRouter(prefix="/v1", tags=["OpenAI batches"], responses=answers.errors(answers.OPENAI_ERROR))

    @router.post("/batches", responses={200: answers.BATCH}, openapi_extra=BATCH_CREATE)
    async def create(request: Request) -> AsciiJSONResponse:
        """Run the requests of a file, apart from those that wait for their answers."""
        body, scope = read_json(await request.body()), caller_of(request).scope
        file_id = fields.text(body.get("input_file_id"), "input_file_id", 100)
        fields.choice(body.get("endpoint"), "endpoint", {ENDPOINT: ENDPOINT}, "")
        fields.choice(body.get("completion_window"), "completion_window", {"24h": "24h"}, "")
        metadata = _metadata(body.get("metadata"))
        file = await asyncio.to_thread(batches.files.get, file_id, scope, "input_file_id")
        batch = await asyncio.to_thread(
            batches.jobs.add, scope=scope, input_file_id=file.id, endpoint=ENDPOINT, metadata=metadata
        )
        batches.wake()
        return AsciiJSONResponse(batch)

    @router.get("/batches", responses={200: answers.BATCHES}, openapi_extra=PAGE_OF_BATCHES)
    async def list_batches(request: Request) -> AsciiJSONResponse:
        """List your batches, newest first."""
        found = await asyncio.to_thread(batches.jobs.all, caller_of(request).scope)
        return AsciiJSONResponse(page(found, request, most=100))

    @router.get("/batches/{batch_id}", responses={200: answers.BATCH})
    async def retrieve(request: Request, batch_id: str) -> AsciiJSONResponse:
        """Say how far a batch is."""
        return AsciiJSONResponse(await asyncio.to_thread(batches.jobs.get, batch_id, caller_of(request).scope))

    @router.post("/batches/{batch_id}/cancel", responses={200: answers.BATCH})
    async def cancel(request: Request, batch_id: str) -> AsciiJSONResponse:
        """Stop a batch; what is done by then is kept, in its output file."""
        scope = caller_of(request).scope
        batch = await asyncio.to_thread(batches.jobs.get, batch_id, scope)
        await asyncio.to_thread(batches.jobs.move, batch, "cancelling")
        batches.wake()
        return AsciiJSONResponse(await asyncio.to_thread(batches.jobs.get, batch_id, scope))

    return router


def _metadata(value: Any) -> dict[str, str] | None:
    """Read up to 16 pairs of strings, as OpenAI takes them."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise fields.wrong_type("an object", value, "metadata")
    if len(value) > 16:
        raise InvalidParameter(f"may hold at most 16 pairs, but holds {len(value)}", param="metadata")
    return {fields.text(key, "metadata", 64): fields.text(text, f"metadata.{key}", 512) for key, text in value.items()}
