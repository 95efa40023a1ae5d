"""Cohere's /v2/embed."""

from __future__ import annotations

from fastapi import APIRouter, Request

from mllm_embed_serving import openapi_answers as answers
from mllm_embed_serving.openapi import COHERE_EMBED
from mllm_embed_serving.responses import AsciiJSONResponse
from mllm_embed_serving.schemas import cohere
from mllm_embed_serving.service import Service


def build(service: Service) -> APIRouter:
    """Return the routes for one service."""
    router = APIRouter(prefix="/v2", tags=["Cohere"], responses=answers.errors(answers.COHERE_ERROR))

    @router.post("/embed", responses={200: answers.COHERE}, openapi_extra=COHERE_EMBED)
    async def embed(request: Request) -> AsciiJSONResponse:
        """Embed texts, images, or mixtures of both."""
        body, model = await service.read(request)
        items = cohere.select_items(body, service.settings.max_items)
        request.state.name_item = items.paths.__getitem__
        asked = cohere.parse_request(body, items, service.reader, service.settings)
        embeddings = await service.embed(request, model, asked.wanted)
        return AsciiJSONResponse(cohere.response_body(asked, embeddings, request.state.request_id))

    return router
