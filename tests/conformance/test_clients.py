"""Other makers' packages, unmodified, in an environment of their own, against the real server on the real engine."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from openai import OpenAI

from mllm_embed.model_dir import ModelDir
from tests.conformance.conftest import KEY

pytestmark = pytest.mark.engine

PYTHON = Path(sys.prefix) / "clients" / "bin" / "python"
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
BLOCKS = [
    (section.partition("\n")[0], block)
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL)
]
SCRIPTS = Path(__file__).parent / "clients"
TEXTS = ["a red circle", "a blue square"]
Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def picture(draw: Callable[..., PIL.Image.Image]) -> str:
    buffer = io.BytesIO()
    draw(3).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def start(*arguments: str) -> list[str]:
    """Run Python in the clients' environment and return the lines that it prints."""
    assert PYTHON.exists(), f"{PYTHON} is missing; `make test` makes it"
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OPENAI_API_KEY")},
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the network for prices
        "NO_PROXY": "*",
    }
    command = [str(PYTHON), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def run(url: str, model_dir: ModelDir, picture: str) -> Callable[[str], dict[str, Any]]:
    """Run one client's script and return what it reports."""

    def script(name: str) -> dict[str, Any]:
        lines = start(str(SCRIPTS / f"{name}_client.py"), url, KEY, model_dir.recipe.name, picture)
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    return script


@pytest.fixture(scope="module")
def expected(client: OpenAI, model_dir: ModelDir) -> Callable[..., Vectors]:
    """The vectors that OpenAI's client gets beside the server."""

    def create(items: list[Any], **options: Any) -> Vectors:
        answer = client.embeddings.create(model=model_dir.recipe.name, input=items, extra_body=options)
        return np.array([item.embedding for item in answer.data], dtype=np.float32)

    return create


def same(found: Any, expected: Vectors) -> None:
    np.testing.assert_allclose(np.array(found, dtype=np.float32), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["openai", "langchain", "llama_index", "litellm", "cohere", "voyage"])
def test_every_client_gets_the_same_vectors_of_texts(
    name: str, run: Callable[[str], dict[str, Any]], expected: Callable[..., Vectors]
) -> None:
    same(run(name)["query"], expected(TEXTS))


def test_cohere_pictures_mixtures_bytes_and_rank(
    run: Callable[[str], dict[str, Any]], expected: Callable[..., Vectors], picture: str
) -> None:
    found = run("cohere")
    mixture = [
        {"type": "text", "text": "the same in blue"},
        {"type": "image_url", "image_url": {"url": picture}},
    ]
    same(found["document"], expected([{"image": picture}, mixture], input_type="document"))
    floats = np.array(found["query"], dtype=np.float32)
    np.testing.assert_array_equal(found["bytes"], np.rint(floats * 127 / np.abs(floats).max(axis=1, keepdims=True)))
    assert sorted(found["ranked"]) == [0, 1]
    assert "the model 'other' does not exist here" in found["refusal"]


def test_voyage_pictures_and_mixtures(
    run: Callable[[str], dict[str, Any]], expected: Callable[..., Vectors], picture: str
) -> None:
    """Its client re-encodes pictures as lossy WebP, so their vectors are near ours, not equal."""
    found = run("voyage")
    mixture = [
        {"type": "text", "text": "the same in blue"},
        {"type": "image_url", "image_url": {"url": picture}},
    ]
    same(found["texts"], expected(TEXTS, dimensions=64))
    exact = expected([{"image": picture}, mixture], input_type="document")
    cosines = (np.array(found["lossy"], dtype=np.float32) * exact).sum(axis=1)
    assert (cosines > 0.95).all(), cosines
    width, height = PIL.Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))).size
    assert found["pixels"] == 2 * width * height
    assert "the model 'other' does not exist here" in found["refusal"]


def test_litellm_speaks_jina_voyage_infinity_and_cohere_too(
    run: Callable[[str], dict[str, Any]], expected: Callable[..., Vectors], picture: str
) -> None:
    found = run("litellm")
    same(found["jina"], expected([*TEXTS, {"image": picture}]))
    same(found["voyage"], expected(TEXTS))
    same(found["infinity"], expected(TEXTS, dimensions=64))
    assert sorted(found["ranked"]) == [0, 1]


def test_the_page_has_every_client() -> None:
    assert [name for name, _ in BLOCKS] == ["openai", "cohere", "voyageai", "LangChain", "LlamaIndex", "LiteLLM"]


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_the_page_s_blocks_run(name: str, block: str, url: str, model_dir: ModelDir) -> None:
    del name
    code = block.replace("http://127.0.0.1:8000", url).replace('"none"', repr(KEY))
    assert start("-c", code)[0] == str(model_dir.recipe.dimensions)
