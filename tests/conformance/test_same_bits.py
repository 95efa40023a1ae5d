"""The same content through every dialect, on the real engine: the same bits, and the library's vectors."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from mllm_embed.embedder import Embedder
from mllm_embed.model_dir import ModelDir
from tests.conformance.conftest import KEY

pytestmark = pytest.mark.engine

TEXT = "two green triangles"


@pytest.fixture
def ask(url: str, model_dir: ModelDir) -> Callable[..., list[dict[str, Any]]]:
    """Post to a route, and return what it says of the vectors."""

    def post(route: str, **body: Any) -> Any:
        content = {"model": model_dir.recipe.name, **body}
        headers = {"authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{url}{route}", json=content, headers=headers, trust_env=False, timeout=60)
        return answer.raise_for_status().json()

    return post


def floats(written: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(written), dtype="<f4")


def test_every_dialect_gives_the_same_bits_and_the_librarys_vectors(
    ask: Callable[..., Any], model_dir: ModelDir, draw: Callable[..., PIL.Image.Image]
) -> None:
    buffer, picture = io.BytesIO(), draw(9)
    picture.save(buffer, "PNG")
    bare = base64.b64encode(buffer.getvalue()).decode()
    uri = f"data:image/png;base64,{bare}"
    shown = {"type": "image_url", "image_url": {"url": uri}}
    contents = [[{"type": "text", "text": TEXT}], [shown], [shown, {"type": "text", "text": TEXT}]]
    items = [TEXT, {"image": uri}, {"image": uri, "text": TEXT}]
    inputs = [{"content": content} for content in contents]
    asked = {"input_type": "document", "encoding_format": "base64"}
    theirs = {"input_type": "document", "output_encoding": "base64"}
    openai = [item["embedding"] for item in ask("/v1/embeddings", input=items, **asked)["data"]]
    conversations = [[{"role": "user", "content": content}] for content in contents]
    jina = [TEXT, {"image": bare}, {"image": bare, "text": TEXT}]
    others = {
        "vllm": ask("/v1/embeddings", messages=conversations, **asked)["data"],
        "jina": ask("/v1/embeddings", input=jina, task="retrieval.passage", embedding_type="base64")["data"],
        "voyage": ask("/v1/multimodalembeddings", inputs=inputs, **theirs)["data"],
    }
    for name, data in others.items():
        assert [item["embedding"] for item in data] == openai, name
    types = ["base64", "int8", "ubinary"]
    cohere = ask("/v2/embed", inputs=inputs, input_type="search_document", embedding_types=types)["embeddings"]
    assert cohere["base64"] == openai
    for dtype in ("int8", "ubinary"):
        alone = ask("/v1/embeddings", input=items, input_type="document", encoding_format=dtype)["data"]
        assert [item["embedding"] for item in alone] == cohere[dtype]
    with Embedder.load(model_dir.path, backend="transformers") as embedder:
        expected = embedder.embed([TEXT, picture, (picture, TEXT)], role="target")
    found = np.stack([floats(written) for written in openai])
    assert float((found * expected).sum(axis=1).min()) >= 0.99999
