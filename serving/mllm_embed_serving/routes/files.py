"""OpenAI's /v1/files, for the input and output files of batches."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.datastructures import UploadFile

from mllm_embed_serving import openapi_answers as answers
from mllm_embed_serving.batches.service import BatchService
from mllm_embed_serving.errors import InvalidParameter
from mllm_embed_serving.openapi import FILE_UPLOAD, PAGE_OF_FILES
from mllm_embed_serving.paging import page
from mllm_embed_serving.responses import AsciiJSONResponse
from mllm_embed_serving.service import caller_of

UPLOAD = "/v1/files"
"""The path that takes larger bodies than the others."""
ENVELOPE_BYTES = 16_384
"""What a form may add to the file in it."""
_MAX_NAME = 255


def build(batches: BatchService) -> APIRouter:
    """Return the routes for one service."""
    router = APIRouter(prefix="/v1", tags=["OpenAI batches"], responses=answers.errors(answers.OPENAI_ERROR))

    @router.post("/files", responses={200: answers.FILE}, openapi_extra=FILE_UPLOAD)
    async def upload(request: Request) -> AsciiJSONResponse:
        """Keep a file of requests, for thirty days."""
        files = batches.files
        async with request.form(max_files=1, max_fields=4) as form:
            file, purpose = form.get("file"), form.get("purpose")
            if not isinstance(file, UploadFile):
                raise InvalidParameter("a file is required, in a form (multipart/form-data)", param="file")
            if purpose != "batch":
                raise InvalidParameter("must be 'batch'", param="purpose")
            name = (file.filename or "input.jsonl")[:_MAX_NAME]
            scope = caller_of(request).scope
            kept = await asyncio.to_thread(files.add, file.file, scope=scope, name=name, purpose="batch")
        return AsciiJSONResponse(kept.to_json())

    @router.get("/files", responses={200: answers.FILES}, openapi_extra=PAGE_OF_FILES)
    async def list_files(request: Request) -> AsciiJSONResponse:
        """List your files, newest first."""
        found = [file.to_json() for file in await asyncio.to_thread(batches.files.all, caller_of(request).scope)]
        if (purpose := request.query_params.get("purpose")) is not None:
            found = [file for file in found if file["purpose"] == purpose]
        return AsciiJSONResponse(page(found, request, most=10_000))

    @router.get("/files/{file_id}", responses={200: answers.FILE})
    async def retrieve(request: Request, file_id: str) -> AsciiJSONResponse:
        """Describe a file."""
        file = await asyncio.to_thread(batches.files.get, file_id, caller_of(request).scope, "file_id")
        return AsciiJSONResponse(file.to_json())

    @router.get("/files/{file_id}/content", responses={200: answers.CONTENT}, response_class=FileResponse)
    async def content(request: Request, file_id: str) -> FileResponse:
        """Return a file as it is."""
        file = await asyncio.to_thread(batches.files.get, file_id, caller_of(request).scope, "file_id")
        return FileResponse(batches.files.path(file), media_type="application/octet-stream")

    @router.delete("/files/{file_id}", responses={200: answers.DELETED})
    async def delete(request: Request, file_id: str) -> dict[str, Any]:
        """Delete a file."""
        file = await asyncio.to_thread(batches.files.get, file_id, caller_of(request).scope, "file_id")
        await asyncio.to_thread(batches.files.delete, file)
        return {"id": file.id, "object": "file", "deleted": True}

    return router
