"""The HTTP application: routes inside, and around them id, counters, error answers, API key and body limit."""

from __future__ import annotations

import importlib.metadata
from typing import NoReturn

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request

from mllm_embed.embedder import Embedder
from mllm_embed_serving.auth import ApiKeyMiddleware
from mllm_embed_serving.errors import MethodNotAllowed, RequestError, UnknownRoute
from mllm_embed_serving.fields import shown
from mllm_embed_serving.middleware import BodyLimitMiddleware, RequestMiddleware
from mllm_embed_serving.routes import cohere, openai, operations, scoring, voyage
from mllm_embed_serving.service import Service
from mllm_embed_serving.settings import ServerSettings


def create_app(embedder: Embedder, settings: ServerSettings | None = None) -> FastAPI:
    """Return the application that serves one embedder.

    Args:
        embedder: a loaded model; its media policy should be `settings.media_policy()`. The caller closes it.
        settings: limits and switches; None takes the defaults.
    """
    service = Service(embedder, settings if settings is not None else ServerSettings())
    app = FastAPI(title="mllm-embed", version=importlib.metadata.version("mllm-embed"), redoc_url=None)
    for dialect in (openai, cohere, voyage, scoring, operations):
        app.include_router(dialect.build(service))
    app.add_exception_handler(HTTPException, _raise_as_ours)
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware, max_bytes=service.settings.max_body_bytes)
    if service.settings.api_key is not None:
        app.add_middleware(ApiKeyMiddleware, api_key=service.settings.api_key)
    app.add_middleware(RequestMiddleware, metrics=service.metrics)
    return app


async def _raise_as_ours(request: Request, error: Exception) -> NoReturn:
    """Turn the framework's own refusals into errors of our tree, so that one table answers all."""
    status = getattr(error, "status_code", 500)
    if status == 404:
        raise UnknownRoute(f"there is no {shown(request.url.path)} here")
    if status == 405:
        raise MethodNotAllowed(f"{shown(request.url.path)} does not take {request.method}")
    raise RequestError(str(getattr(error, "detail", error)))
