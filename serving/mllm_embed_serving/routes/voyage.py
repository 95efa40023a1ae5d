"""Voyage's /v1/multimodalembeddings."""

from __future__ import annotations

from fastapi import APIRouter, Request

from mllm_embed_serving import openapi_answers as answers
from mllm_embed_serving.openapi import VOYAGE_EMBED
from mllm_embed_serving.responses import AsciiJSONResponse, item_describer
from mllm_embed_serving.schemas import voyage
from mllm_embed_serving.service import Service


def build(service: Service) -> APIRouter:
    """Return the routes for one service."""
    router = APIRouter(prefix="/v1", tags=["Voyage"], responses=answers.errors(answers.VOYAGE_ERROR))

    @router.post("/multimodalembeddings", responses={200: answers.VOYAGE}, openapi_extra=VOYAGE_EMBED)
    async def embed(request: Request) -> AsciiJSONResponse:
        """Embed arrays of texts and images, each fused into one vector."""
        body, model = await service.read(request)
        items = voyage.select_items(body, service.settings.max_items)
        request.state.name_item = items.paths.__getitem__
        asked = voyage.parse_request(body, items, service.reader, service.settings)
        outcomes = await service.outcomes(request, model, asked)
        return AsciiJSONResponse(voyage.response_body(asked, outcomes, model.name, item_describer(request)))

    return router
