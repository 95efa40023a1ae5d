"""vLLM's routes that load and unload LoRA adapters while the server runs, for callers who may operate it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from mllm_embed_serving import fields
from mllm_embed_serving import openapi_answers as answers
from mllm_embed_serving.errors import InvalidParameter, PermissionDenied, UnknownRoute
from mllm_embed_serving.openapi import LOAD_ADAPTER, UNLOAD_ADAPTER
from mllm_embed_serving.schemas.common import read_json
from mllm_embed_serving.service import Service, caller_of

_MAX_NAME = 200
_MAX_PATH = 1000


def build(service: Service) -> APIRouter:
    """Return the routes for one service."""
    router = APIRouter(prefix="/v1", tags=["adapters"], responses=answers.errors(answers.OPENAI_ERROR))

    async def read(request: Request) -> tuple[dict[str, Any], str]:
        """Return the body of a caller who may do this, and the adapter that it names."""
        if service.settings.adapters_folder is None:
            raise UnknownRoute("adapters cannot be loaded here: this server was started without --adapters-dir")
        if not caller_of(request).admin:
            raise PermissionDenied("this key may not load and unload adapters: it takes an admin's")
        body = read_json(await request.body())
        name = fields.text(body.get("lora_name"), "lora_name", _MAX_NAME)
        if not name.strip():
            raise InvalidParameter("must not be empty", param="lora_name")
        return body, name

    @router.post("/load_lora_adapter", responses={200: answers.MODEL}, openapi_extra=LOAD_ADAPTER)
    async def load(request: Request) -> dict[str, Any]:
        """Load an adapter and serve it under its name; the answer is its card."""
        body, name = await read(request)
        if fields.boolean(body.get("load_inplace"), "load_inplace", default=False):
            raise InvalidParameter("is not supported: unload the adapter first, then load it", param="load_inplace")
        path = fields.text(body.get("lora_path"), "lora_path", _MAX_PATH)
        return await (await service.models.load_asked(name, path)).card()

    @router.post("/unload_lora_adapter", responses={200: answers.UNLOADED}, openapi_extra=UNLOAD_ADAPTER)
    async def unload(request: Request) -> dict[str, Any]:
        """Serve an adapter no longer; the answer comes when the requests under way have been answered."""
        _, name = await read(request)
        await service.models.unload(name)
        return {"id": name, "object": "model", "deleted": True}

    return router
