"""One real server on the real engine for all of these tests, and OpenAI's own client in front of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from mllm_embed.model_dir import BUILT_IN, ModelDir, open_model_dir
from tests.lora_files import write_lora
from tests.server_process import ServerProcess

KEY = "conformance-key"
ADMIN = "conformance-admin"
STARTED = "started"
"""The adapter that is served from the start."""


@dataclass(frozen=True)
class Adapters:
    """Adapters on disk.

    Attributes:
        started: of the adapter `STARTED`.
        folder: from which admins may load more.
    """

    started: Path
    folder: Path


def wait_until(happened: Callable[[], object], seconds: float = 120) -> None:
    """Wait for what the server does."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def model_dir() -> ModelDir:
    """The model that users meet first."""
    return open_model_dir(BUILT_IN)


@pytest.fixture(scope="session")
def adapters(model_dir: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    folder = tmp_path_factory.mktemp("adapters")
    return Adapters(write_lora(folder / "started", model_dir.weights, 1), folder)


@pytest.fixture(scope="session")
def server(
    model_dir: ModelDir, adapters: Adapters, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    arguments = [model_dir.recipe.name, "--backend", "vllm", "--port", "0", "--batch-dir", str(folder / "batches")]
    arguments += ["--adapter", f"{STARTED}={adapters.started}"]
    arguments += ["--adapters-dir", str(adapters.folder), "--max-adapters", "2", "--max-adapter-rank", "8"]
    keys = {"MLLM_EMBED_API_KEY": KEY, "MLLM_EMBED_ADMIN_KEY": ADMIN}
    with ServerProcess(*arguments, log=folder / "log", environment=keys) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="session")
def url(server: ServerProcess) -> str:
    return server.wait_ready()


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def metric(url: str) -> Callable[[str], float]:
    """Read a series of /metrics; 0 before its first value."""

    def read(series: str) -> float:
        text = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {KEY}"}, trust_env=False).text
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    return read
