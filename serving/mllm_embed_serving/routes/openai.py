"""OpenAI's routes: /v1/embeddings and /v1/models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from mllm_embed_serving import openapi_answers as answers
from mllm_embed_serving.openapi import EMBEDDINGS
from mllm_embed_serving.responses import AsciiJSONResponse, item_describer
from mllm_embed_serving.schemas import openai
from mllm_embed_serving.service import Service


def build(service: Service) -> APIRouter:
    """Return the routes for one service."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=answers.errors(answers.OPENAI_ERROR))

    @router.post("/embeddings", responses={200: answers.EMBEDDINGS}, openapi_extra=EMBEDDINGS)
    async def create_embeddings(request: Request) -> AsciiJSONResponse:
        """Embed texts, images and mixtures of both."""
        body, model = await service.read(request)
        items = openai.select_items(body, service.settings.max_items)
        request.state.name_item = items.paths.__getitem__  # so that an error can name the item as the caller wrote it
        asked = openai.parse_request(body, items, service.reader, service.settings)
        outcomes = await service.outcomes(request, model, asked)
        return AsciiJSONResponse(openai.response_body(asked, outcomes, model.name, item_describer(request)))

    @router.get("/models", responses={200: answers.MODELS})
    async def list_models() -> dict[str, Any]:
        """List the served model and the adapters on it, with everything that decides their vectors."""
        return {"object": "list", "data": [await model.card() for model in service.models.all()]}

    @router.get("/models/{name:path}", responses={200: answers.MODEL})
    async def retrieve_model(name: str) -> dict[str, Any]:
        """Describe the served model, or an adapter on it."""
        return await service.models.find(name).card()

    return router
