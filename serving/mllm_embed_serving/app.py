"""The HTTP application: routes, around them body limit, API key, error answers, counters and id, and CORS if wanted."""

from __future__ import annotations

import importlib.metadata
from typing import Any, NoReturn

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request

from mllm_embed.embedder import Embedder
from mllm_embed_serving.access.auth import AccessMiddleware
from mllm_embed_serving.batches.service import BatchService
from mllm_embed_serving.errors import MethodNotAllowed, RequestError, UnknownRoute
from mllm_embed_serving.fields import shown
from mllm_embed_serving.middleware import BodyLimitMiddleware, RequestMiddleware
from mllm_embed_serving.models import Models
from mllm_embed_serving.routes import adapters, batches, cohere, files, openai, operations, scoring, voyage
from mllm_embed_serving.service import Service
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.tracing import Tracer

_SHOWN_TO_PAGES = [
    *("x-request-id", "retry-after", "openai-processing-ms"),
    *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
]
"""Headers of answers that a page of an allowed origin may read."""


class _Application(FastAPI):
    """FastAPI, whose description of the API names the served models and our own answers.

    Its own check of parameters (422) is left out, since ours answers instead, with 400.
    """

    models: Models

    def openapi(self) -> dict[str, Any]:
        """Return the description."""
        if self.openapi_schema is None:
            described = super().openapi()
            for operation in (operation for path in described["paths"].values() for operation in path.values()):
                operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                described.get("components", {}).get("schemas", {}).pop(unused, None)
        described = super().openapi()
        for operation in (operation for path in described["paths"].values() for operation in path.values()):
            body = operation.get("requestBody", {"content": {}})["content"].get("application/json", {"schema": {}})
            if "model" in body["schema"].get("properties", {}):
                body["schema"]["properties"]["model"] = {"enum": self.models.names}
        return described


def create_app(embedder: Embedder, settings: ServerSettings | None = None, tracer: Tracer | None = None) -> FastAPI:
    """Return the application that serves one embedder.

    Args:
        embedder: a loaded model; its media policy should be `settings.media_policy()`. The caller closes it.
        settings: limits and switches; None takes the defaults.
        tracer: follows single requests; None follows none.
    """
    service = Service(embedder, settings if settings is not None else ServerSettings(), tracer)
    app = _Application(title="mllm-embed", version=importlib.metadata.version("mllm-embed"), redoc_url=None)
    app.models = service.models
    for dialect in (openai, cohere, voyage, scoring, adapters, operations):
        app.include_router(dialect.build(service))
    app.state.batches = BatchService(service)
    for part in (files, batches):
        app.include_router(part.build(app.state.batches))
    app.add_exception_handler(HTTPException, _raise_as_ours)
    # The last one added is the outermost.
    limits = service.settings
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=limits.max_body_bytes,
        larger={files.UPLOAD: limits.max_file_bytes + files.ENVELOPE_BYTES},
        timeout_s=limits.body_timeout_s,
    )
    app.add_middleware(AccessMiddleware, callers=service.callers, admission=service.admission)
    app.add_middleware(RequestMiddleware, metrics=service.metrics)
    if limits.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=limits.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=_SHOWN_TO_PAGES,
        )
    app.state.service = service
    return app


async def _raise_as_ours(request: Request, error: Exception) -> NoReturn:
    """Turn the framework's own refusals into errors of our tree, so that one table answers all."""
    status = getattr(error, "status_code", 500)
    if status == 404:
        raise UnknownRoute(f"there is no {shown(request.url.path)} here")
    if status == 405:
        raise MethodNotAllowed(f"{shown(request.url.path)} does not take {request.method}")
    raise RequestError(str(getattr(error, "detail", error)))
