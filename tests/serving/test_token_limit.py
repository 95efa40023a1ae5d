"""The tokens of all texts of a request together are limited, as at OpenAI, in every dialect and whatever is cached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mllm_embed.embedder import Embedder
from mllm_embed.prompts import load_tokenizer
from mllm_embed_serving.settings import ServerSettings
from tests.error_shape import check_error

pytestmark = pytest.mark.fast

TEXTS = [f"a red circle beside a blue square, number {number}" for number in range(100)]
LIMIT = 500
Post = Callable[..., Any]


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(max_request_tokens=LIMIT)


def tokens(embedder: Embedder, texts: list[str]) -> int:
    tokenizer = load_tokenizer(embedder.model_dir.tokenizer_file)
    return sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)


async def test_more_are_refused_with_openai_s_error_and_nothing_is_embedded(
    embed: Post, client: httpx.AsyncClient
) -> None:
    for _ in range(2):
        answer = await embed(input=TEXTS)
        says = (f"at most {LIMIT} tokens", "send fewer")
        check_error(answer.json(), answer.status_code, expected=400, code="max_tokens_per_request", says=says)
        assert answer.json()["error"]["type"] == "max_tokens_per_request"
    assert "mllm_embed_items_total 0.0" in (await client.get("/metrics")).text
    assert "mllm_embed_cache_misses_total 0.0" in (await client.get("/metrics")).text


async def test_exactly_as_many_are_embedded(embed: Post, embedder: Embedder) -> None:
    some = next(TEXTS[:count] for count in range(100) if tokens(embedder, TEXTS[: count + 1]) > LIMIT)
    words = LIMIT - tokens(embedder, some)
    filled = next(text for text in ("a " * count for count in range(1, 99)) if tokens(embedder, [text]) == words)
    assert tokens(embedder, [*some, filled]) == LIMIT
    assert (await embed(input=[*some, filled])).status_code == 200
    assert (await embed(input=[*some, filled, "a"])).status_code == 400


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v2/embed", {"texts": TEXTS, "input_type": "search_document"}),
        ("/v1/multimodalembeddings", {"inputs": [{"content": [{"type": "text", "text": text}]} for text in TEXTS]}),
        ("/v1/rerank", {"query": "a", "documents": TEXTS}),
        ("/v1/score", {"text_1": "a", "text_2": TEXTS}),
        ("/v1/embeddings", {"input": ["", *TEXTS], "partial": True}),
        ("/v1/embeddings", {"messages": [[{"role": "user", "content": text}] for text in TEXTS]}),
    ],
)
async def test_every_dialect_has_the_limit(client: httpx.AsyncClient, route: str, body: dict[str, Any]) -> None:
    answer = await client.post(route, json={"model": "fake", **body})
    assert answer.status_code == 400
    assert f"at most {LIMIT} tokens" in answer.text


async def test_of_a_text_that_is_cut_the_rest_does_not_count(embedder: Embedder, client: httpx.AsyncClient) -> None:
    longest = embedder.model_dir.recipe.max_tokens
    assert longest > LIMIT, "one text alone reaches the limit"
    body = {"model": "fake", "input": "cat " * 20_000, "truncate": "end"}
    answer = await client.post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    assert f"hold {longest:,} or more" in answer.text
