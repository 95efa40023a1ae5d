"""One real server on the real engine for all of these tests, and OpenAI's own client in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from mllm_embed.model_dir import BUILT_IN, ModelDir, open_model_dir
from tests.server_process import ServerProcess

KEY = "conformance-key"


@pytest.fixture(scope="session")
def model_dir() -> ModelDir:
    """The model that users meet first."""
    return open_model_dir(BUILT_IN)


@pytest.fixture(scope="session")
def server(model_dir: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    log = folder / "log"
    arguments = (model_dir.recipe.name, "--backend", "vllm", "--port", "0", "--batch-dir", str(folder / "batches"))
    with ServerProcess(*arguments, log=log, environment={"MLLM_EMBED_API_KEY": KEY}) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="session")
def url(server: ServerProcess) -> str:
    return server.wait_ready()


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client
