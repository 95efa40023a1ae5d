"""Routes for those who run the server: /health and /metrics."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from mllm_embed_serving import openapi_answers as answers
from mllm_embed_serving.service import Service


def build(service: Service) -> APIRouter:
    """Return the routes for one service."""
    router = APIRouter(tags=["operations"], responses=answers.errors(answers.OPENAI_ERROR))

    @router.get("/health", responses={200: answers.HEALTH})
    async def health() -> dict[str, str]:
        """Answer 200 if the engine can take work now, else 503."""
        service.check_health()
        return {"status": "ok"}

    @router.get("/metrics", responses={200: answers.METRICS}, response_class=Response)
    async def metrics() -> Response:
        """Return the counters in Prometheus' text format."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router
