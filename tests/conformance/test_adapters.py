"""LoRA adapters by model name over HTTP, on the real engine: from the start, loaded and unloaded while it runs.

The vectors that they must give are those of the library with the adapter, on the engine of transformers.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from openai import OpenAI

from mllm_embed.adapters import open_adapter
from mllm_embed.backends import load_backend
from mllm_embed.embedder import Embedder
from mllm_embed.model_dir import ModelDir
from tests.conformance.conftest import ADMIN, STARTED, Adapters, wait_until
from tests.error_shape import check_error
from tests.lora_files import write_lora

pytestmark = pytest.mark.engine

TEXTS = ["a red circle", "a blue square beside it", "nothing at all"]
MANY = [f"a red circle beside a blue square, number {number}" for number in range(600)]
SAME = 0.99999
Vectors = NDArray[np.float32]
Route = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def library(model_dir: ModelDir) -> Callable[..., Vectors]:
    """The library's vectors of texts with an adapter, or without one."""

    def embed(texts: list[str], adapter: Path | None = None) -> Vectors:
        opened = model_dir if adapter is None else open_adapter(model_dir, "tuned", adapter)
        with Embedder(opened, load_backend("transformers", opened)) as embedder:
            return embedder.embed(texts)

    return embed


@pytest.fixture
def served(client: OpenAI) -> Callable[..., Vectors]:
    """The server's vectors of texts under a model name."""

    def embed(name: str, texts: list[str]) -> Vectors:
        answer = client.embeddings.create(model=name, input=texts)
        assert answer.model == name
        return np.array([item.embedding for item in answer.data], dtype=np.float32)

    return embed


@pytest.fixture
def admin(url: str) -> Iterator[Route]:
    """Load or unload an adapter."""
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {ADMIN}"}, trust_env=False, timeout=60) as http:

        def ask(what: str, name: str, **more: Any) -> httpx.Response:
            return http.post(f"/v1/{what}_lora_adapter", json={"lora_name": name, **more})

        yield ask


def closeness(left: Vectors, right: Vectors) -> float:
    return float((left * right).sum(axis=1).min())


def test_the_one_from_the_start_gives_the_librarys_vectors(
    served: Callable[..., Vectors], library: Callable[..., Vectors], adapters: Adapters, model_dir: ModelDir
) -> None:
    plain, tuned = library(TEXTS), library(TEXTS, adapters.started)
    assert closeness(plain, tuned) < 0.99, "it changes the vectors"
    assert closeness(served(STARTED, TEXTS), tuned) >= SAME
    assert closeness(served(model_dir.recipe.name, TEXTS), plain) >= SAME


def test_one_that_is_loaded_while_the_engine_runs(
    served: Callable[..., Vectors],
    library: Callable[..., Vectors],
    admin: Route,
    adapters: Adapters,
    client: OpenAI,
    model_dir: ModelDir,
) -> None:
    plain = served(model_dir.recipe.name, TEXTS)
    expected = library(TEXTS, write_lora(adapters.folder / "later", model_dir.weights, 2))
    card = admin("load", "later", lora_path="later").raise_for_status().json()
    assert card == client.models.retrieve("later").to_dict()
    assert (card["parent"], card["backend"]) == (model_dir.recipe.name, "vllm")
    with ThreadPoolExecutor(6) as pool:  # three models in the engine's batches at once
        names = ["later", STARTED, model_dir.recipe.name] * 4
        found = list(pool.map(lambda name: served(name, TEXTS), names))
    for name, vectors in zip(names, found, strict=True):
        right = {"later": expected, model_dir.recipe.name: plain}.get(name, found[1])
        assert closeness(vectors, right) >= SAME, name
    assert closeness(expected, found[1]) < 0.99, "the two adapters differ"
    assert admin("unload", "later").json() == {"id": "later", "object": "model", "deleted": True}
    shutil.rmtree(adapters.folder / "later")
    stronger = library(TEXTS, write_lora(adapters.folder / "later", model_dir.weights, 3))
    admin("load", "later", lora_path="later").raise_for_status()
    assert closeness(served("later", TEXTS), stronger) >= SAME, "neither the cache nor the engine has the former one"
    admin("unload", "later").raise_for_status()


def test_one_that_changes_no_vector_is_refused(admin: Route, adapters: Adapters, model_dir: ModelDir) -> None:
    write_lora(adapters.folder / "nothing", model_dir.weights, 1, scale=0)
    answer = admin("load", "nothing", lora_path="nothing")
    check_error(answer.json(), answer.status_code, expected=400, code="invalid_adapter", says="changes nothing")
    assert str(adapters.folder) not in answer.text


def test_unknown_names_are_404(admin: Route, url: str) -> None:
    body = {"model": "unknown", "input": "a"}
    headers = {"authorization": f"Bearer {ADMIN}"}
    answer = httpx.post(f"{url}/v1/embeddings", json=body, headers=headers, trust_env=False)
    check_error(answer.json(), answer.status_code, expected=404, code="model_not_found", param="model", says=STARTED)
    answer = admin("unload", "unknown")
    check_error(answer.json(), answer.status_code, expected=404, code="model_not_found", param="model", says="unknown")


def test_what_is_under_way_is_answered_when_it_is_unloaded(
    served: Callable[..., Vectors],
    admin: Route,
    adapters: Adapters,
    model_dir: ModelDir,
    metric: Callable[[str], float],
    client: OpenAI,
) -> None:
    write_lora(adapters.folder / "leaving", model_dir.weights, 4)
    admin("load", "leaving", lora_path="leaving").raise_for_status()
    before = served("leaving", MANY[-3:])
    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(served, "leaving", MANY)
        wait_until(lambda: metric("mllm_embed_queued_items") == len(MANY))
        unloading = pool.submit(admin, "unload", "leaving")
        wait_until(lambda: "leaving" not in {model.id for model in client.models.list()})
        assert not asking.done(), "there was something under way"
        assert unloading.result().status_code == 200
        assert metric("mllm_embed_queued_items") == 0, "it is freed when nothing is under way for it any more"
        assert closeness(asking.result()[-3:], before) >= SAME
