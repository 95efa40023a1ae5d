"""Rerank and score, in the shapes of Jina and Voyage (/v1/rerank), Cohere (/v2/rerank) and vLLM (/v1/score)."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request

from mllm_embed_serving import openapi_answers as answers
from mllm_embed_serving.models import ServedModel
from mllm_embed_serving.openapi import RERANK, SCORE
from mllm_embed_serving.responses import AsciiJSONResponse
from mllm_embed_serving.schemas import scoring
from mllm_embed_serving.service import Service


def build(service: Service) -> APIRouter:
    """Return the routes for one service."""
    router = APIRouter(tags=["rerank and score"], responses=answers.errors(answers.OPENAI_ERROR))

    async def rank(request: Request, body: dict[str, Any], model: ServedModel) -> tuple[list[dict[str, Any]], int]:
        """Return the results of a rerank request, and the tokens that were read for them."""
        items = scoring.rerank_items(body, service.settings.max_items)
        asked = scoring.parse_rerank(body, items, service.reader, service.settings)
        request.state.name_item = asked.paths.__getitem__
        embeddings = await service.embed(request, model, asked.wanted)
        return scoring.ranked(asked, embeddings, items), sum(item.tokens for item in embeddings)

    @router.post("/v1/rerank", responses={200: answers.RERANK}, openapi_extra=RERANK)
    async def rerank(request: Request) -> AsciiJSONResponse:
        """Rank documents, texts or images, by their similarity to a query."""
        body, model = await service.read(request)
        results, tokens = await rank(request, body, model)
        return AsciiJSONResponse(scoring.jina_body(model.name, results, tokens))

    @router.post(
        "/v2/rerank",
        responses={200: answers.COHERE_RERANK, **answers.errors(answers.COHERE_ERROR)},
        openapi_extra=RERANK,
    )
    async def rerank_v2(request: Request) -> AsciiJSONResponse:
        """Rank documents, texts or images, by their similarity to a query."""
        body, model = await service.read(request)
        results, _ = await rank(request, body, model)
        return AsciiJSONResponse(scoring.cohere_body(request.state.request_id, results))

    @router.post("/v1/score", responses={200: answers.SCORE}, openapi_extra=SCORE)
    async def score(request: Request) -> AsciiJSONResponse:
        """Return the similarity of one query to documents, or of pairs."""
        body, model = await service.read(request)
        limit = service.settings.max_items
        queries = scoring.score_items(body, "queries", limit)
        documents = scoring.score_items(body, "documents", limit)
        asked = scoring.parse_score(body, queries, documents, service.reader, service.settings)
        request.state.name_item = asked.paths.__getitem__
        embeddings = await service.embed(request, model, asked.wanted)
        tokens = sum(item.tokens for item in embeddings)
        scores = scoring.scores(asked, embeddings)
        answer = scoring.score_body(request.state.request_id, int(time.time()), model.name, scores, tokens)
        return AsciiJSONResponse(answer)

    return router
