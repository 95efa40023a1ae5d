"""The playground against the real API on the fake backend; servers answer on ports of their own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import PIL.Image
import pytest
import uvicorn

from mllm_embed.backends.fake import fake_embedder
from mllm_embed_demo.client import EmbeddingsClient
from mllm_embed_demo.pictures import Picture
from mllm_embed_demo.search import Playground
from mllm_embed_demo.web import create_web_app
from mllm_embed_serving.app import create_app
from mllm_embed_serving.settings import ServerSettings

if TYPE_CHECKING:
    from fastapi import FastAPI


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve an application on a free port of 127.0.0.1, and yield its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="session")
def api() -> Iterator[str]:
    """Address of a live API."""
    settings = ServerSettings()
    policy = settings.media_policy()
    with (
        fake_embedder(dimensions=64, matryoshka_dimensions=(16, 32), policy=policy) as embedder,
        running(create_app(embedder, settings)) as url,
    ):
        yield url


@pytest.fixture
def client(api: str) -> Iterator[EmbeddingsClient]:
    with EmbeddingsClient(api) as client:
        yield client


def write_pictures(folder: Path, draw: Callable[..., PIL.Image.Image]) -> list[Picture]:
    """Draw five small pictures into a folder."""
    made = []
    for seed in range(5):
        path = folder / f"picture-{seed}.png"
        draw(seed).save(path)
        made.append(Picture.of(path, title=f"Picture {seed}", credit="drawn"))
    return made


@pytest.fixture
def pictures(tmp_path: Path, draw: Callable[..., PIL.Image.Image]) -> list[Picture]:
    return write_pictures(tmp_path, draw)


@pytest.fixture
def playground(client: EmbeddingsClient, pictures: list[Picture], tmp_path: Path) -> Playground:
    return Playground(client, pictures, tmp_path / "vectors")


T = TypeVar("T")


def build(make: Callable[[], T]) -> T:
    """Call `make` inside an event loop: outside of one, Gradio makes loops that nobody closes."""

    async def inside() -> T:
        return make()

    return asyncio.run(inside())


@pytest.fixture
def page_url(playground: Playground) -> Iterator[str]:
    """Address of a live playground that a test has for itself."""
    with running(build(lambda: create_web_app(playground))) as url:
        yield url


@pytest.fixture(scope="session")
def shared(
    api: str, draw: Callable[..., PIL.Image.Image], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Playground]:
    """A playground that tests only look at."""
    folder = tmp_path_factory.mktemp("shared")
    with EmbeddingsClient(api) as client:
        yield Playground(client, write_pictures(folder, draw), folder / "vectors")


@pytest.fixture(scope="session")
def shared_url(shared: Playground) -> Iterator[str]:
    """Its address."""
    with running(build(lambda: create_web_app(shared))) as url:
        yield url
