"""The application on the fake backend, in this process."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import PIL.Image
import pytest

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.embedder import Embedder
from mllm_embed_serving.app import create_app
from mllm_embed_serving.settings import ServerSettings

Post = Callable[..., Any]


@pytest.fixture
def settings() -> ServerSettings:
    """The settings of `client`; a test file or class overrides this to serve with others."""
    return ServerSettings()


@pytest.fixture
def embedder(settings: ServerSettings) -> Iterator[Embedder]:
    with fake_embedder(dimensions=64, matryoshka_dimensions=(16, 32), policy=settings.media_policy()) as embedder:
        yield embedder


@pytest.fixture
async def client(embedder: Embedder, settings: ServerSettings) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(embedder, settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def embed(client: httpx.AsyncClient) -> Post:
    """Post to /v1/embeddings."""

    async def post(**body: Any) -> httpx.Response:
        return await client.post("/v1/embeddings", json={"model": "fake", **body})

    return post


@pytest.fixture
def ask(client: httpx.AsyncClient) -> Post:
    """Post to any route, and return the parsed answer of a success."""

    async def post(path: str, **body: Any) -> Any:
        response = await client.post(path, json={"model": "fake", **body})
        assert response.status_code == 200, response.text
        return response.json()

    return post


@pytest.fixture(scope="session")
def png(draw: Callable[..., PIL.Image.Image]) -> Callable[..., str]:
    """Draw a picture and return the base64 of its PNG file."""

    def encode(seed: int = 0, width: int = 24, height: int = 20) -> str:
        buffer = io.BytesIO()
        draw(seed, width, height).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    return encode


@pytest.fixture(scope="session")
def uri(png: Callable[..., str]) -> Callable[..., str]:
    """Draw a picture and return its data URI."""
    return lambda *args, **options: f"data:image/png;base64,{png(*args, **options)}"
