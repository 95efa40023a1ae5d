"""Token ids are the model's own unless the operator says otherwise; another tokenizer's are never read as ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.errors import BackendUnavailable, InvalidInput
from mllm_embed_serving.app import create_app
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.token_ids import TokenIds, decoder

HELLO = "hello"
CL100K = {HELLO: [15339], " world": [1917]}
"""Two entries of OpenAI's published table."""


class Table:
    """A cl100k table of two words."""

    def decode(self, ids: list[int], errors: str) -> str:
        assert errors == "strict"
        words = {ids[0]: word for word, ids in CL100K.items()}
        return "".join(words[number] for number in ids)


@pytest.fixture
def two_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: {"cl100k_base": Table()}[name])


async def embed(policy: TokenIds, item: Any) -> httpx.Response:
    settings = ServerSettings(token_ids=policy)
    with fake_embedder(policy=settings.media_policy()) as embedder:
        transport = httpx.ASGITransport(create_app(embedder, settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v1/embeddings", json={"model": "fake", "input": item})


@pytest.mark.usefixtures("two_words")
async def test_cl100k_ids_are_embedded_as_their_text() -> None:
    text = await embed("cl100k", "hello world")
    ids = await embed("cl100k", [[15339, 1917]])
    assert text.json()["data"] == ids.json()["data"]


@pytest.mark.usefixtures("two_words")
async def test_ids_outside_the_table_are_refused() -> None:
    answer = await embed("cl100k", [[1]])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[0]")
    assert "not cl100k ids" in answer.json()["error"]["message"]


async def test_ids_can_be_refused_altogether() -> None:
    answer = await embed("reject", ["a", [5, 6]])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[1]")
    assert "send text" in answer.json()["error"]["message"]


def test_a_missing_table_is_said_before_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    def unreachable(_: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(tiktoken, "get_encoding", unreachable)
    with pytest.raises(BackendUnavailable, match=r"TIKTOKEN_CACHE_DIR.*no network"):
        decoder("cl100k", str)


def test_ids_that_our_tokenizer_would_not_make_are_another_tokenizers(tiny_model: Callable[[str], Any]) -> None:
    from mllm_embed.model_dir import open_model_dir
    from mllm_embed.prompts import PromptRenderer

    directory = open_model_dir(tiny_model("qwen3_vl"))
    renderer = PromptRenderer(directory.tokenizer_file, directory.family, directory.template)
    ids = renderer.tokenize("a picture of the same thing")
    assert renderer.decode(ids) == "a picture of the same thing"
    letters = [renderer.tokenize(letter)[0] for letter in "picture"]
    assert len(renderer.tokenize("picture")) < len(letters), "the tokenizer merges the word"
    with pytest.raises(InvalidInput, match="another tokenizer's"):
        renderer.decode(letters)
