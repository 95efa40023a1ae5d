"""Cohere's, Voyage's and Jina's requests, rerank and score: same vectors as OpenAI's route, each in its own shape."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

pytestmark = pytest.mark.fast

Post = Callable[..., Any]
Picture = Callable[..., str]
Vector = np.ndarray[Any, np.dtype[np.float64]]


@pytest.fixture
def refused(client: httpx.AsyncClient) -> Post:
    """Post a bad request to any route, and return the parsed answer."""

    async def post(path: str, **body: Any) -> Any:
        response = await client.post(path, json={"model": "fake", **body})
        assert response.status_code == 400, response.text
        return response.json()

    return post


@pytest.fixture
def vectors(ask: Post) -> Post:
    """The vectors of OpenAI's route."""

    async def get(*items: Any, **options: Any) -> Vector:
        data = (await ask("/v1/embeddings", input=list(items), **options))["data"]
        return np.array([item["embedding"] for item in data])

    return get


# Cohere


@pytest.mark.parametrize(
    ("input_type", "options"),
    [
        ("search_query", {}),
        ("search_document", {"input_type": "document"}),
        ("clustering", {"input_type": "document"}),
        ("classification", {"task": "classification"}),
    ],
)
async def test_cohere_texts_under_every_input_type(
    ask: Post, vectors: Post, input_type: str, options: dict[str, Any]
) -> None:
    body = await ask("/v2/embed", texts=["a", "b"], input_type=input_type)
    np.testing.assert_array_equal(body["embeddings"]["float"], await vectors("a", "b", **options))
    assert (body["response_type"], body["texts"]) == ("embeddings_by_type", ["a", "b"])
    assert body["id"].startswith("req_")
    assert body["meta"]["billed_units"]["input_tokens"] > 0


async def test_cohere_images_and_mixed_inputs(ask: Post, vectors: Post, uri: Picture) -> None:
    expected = await vectors(
        {"image": uri(1)}, [*[{"type": "text", "text": "a"}], image_part(uri(2))], input_type="document"
    )
    images = await ask("/v2/embed", images=[uri(1)], input_type="image")
    np.testing.assert_array_equal(images["embeddings"]["float"], expected[:1])
    content = [{"type": "text", "text": "a"}, image_part(uri(2))]
    mixed = await ask("/v2/embed", inputs=[{"content": content}], input_type="search_document")
    np.testing.assert_array_equal(mixed["embeddings"]["float"], expected[1:])
    assert "texts" not in mixed


def image_part(uri: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri}}


async def test_cohere_embedding_types_hold_the_same_vector(ask: Post) -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    body = await ask("/v2/embed", texts=["a"], input_type="search_query", embedding_types=types)
    assert list(body["embeddings"]) == types
    one = {name: rows[0] for name, rows in body["embeddings"].items()}
    floats = np.array(one["float"], dtype=np.float32)
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(one["base64"]), dtype="<f4"), floats)
    small = np.array(one["int8"], dtype=np.float64)
    assert (np.abs(small).max(), one["int8"]) == (127, [value - 128 for value in one["uint8"]])
    assert small @ floats / np.linalg.norm(small) > 0.999
    np.testing.assert_array_equal(np.unpackbits(np.array(one["ubinary"], dtype=np.uint8)), floats > 0)
    assert one["binary"] == [value - 128 for value in one["ubinary"]]


async def test_cohere_output_dimension(ask: Post, vectors: Post) -> None:
    body = await ask("/v2/embed", texts=["a"], input_type="search_query", output_dimension=16)
    np.testing.assert_array_equal(body["embeddings"]["float"], await vectors("a", dimensions=16))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"texts": ["a"]}, "input_type: is required"),
        ({"texts": ["a"], "input_type": "other"}, "input_type: must be one of 'search_query'"),
        ({"input_type": "search_query"}, "exactly one of texts, images, inputs is needed, but none"),
        ({"texts": ["a"], "images": ["b"], "input_type": "image"}, "texts and images are given"),
        ({"texts": [], "input_type": "image"}, "texts: must not be an empty array"),
        ({"texts": ["a", ""], "input_type": "image"}, "texts[1]: text must not be empty"),
        ({"texts": ["a", 3], "input_type": "image"}, "texts[1]: must be a string, but is an integer"),
        ({"images": ["file:///etc/passwd"], "input_type": "image"}, "images[0]"),
        ({"inputs": ["a"], "input_type": "image"}, "inputs[0]: must be an object with content"),
        ({"inputs": [{"content": []}], "input_type": "image"}, "inputs[0].content: must not be an empty array"),
        ({"texts": ["a"], "input_type": "image", "embedding_types": ["float", "bits"]}, "embedding_types[1]"),
        ({"texts": ["a"], "input_type": "image", "truncate": "MIDDLE"}, "truncate: must be one of 'NONE'"),
        ({"texts": ["a"], "input_type": "image", "max_tokens": 4}, "max_tokens: is not supported"),
    ],
)
async def test_cohere_faults_have_cohere_s_shape(refused: Post, body: dict[str, Any], says: str) -> None:
    answer = await refused("/v2/embed", **body)
    assert set(answer) == {"id", "message"}
    assert says in answer["message"]


# Voyage


async def test_voyage_as_its_client_sends_it(ask: Post, vectors: Post, uri: Picture) -> None:
    body = await ask(
        "/v1/multimodalembeddings",
        inputs=[
            {"content": [{"type": "text", "text": "a"}, {"type": "image_base64", "image_base64": uri(1)}]},
            {"content": [{"type": "image_url", "image_url": uri(2)}]},
        ],
        input_type=None,
        truncation=True,
        output_dtype=None,
        output_dimension=None,
    )
    expected = await vectors(
        [{"type": "text", "text": "a"}, image_part(uri(1))], {"image": uri(2)}, input_type="document"
    )
    np.testing.assert_array_equal([item["embedding"] for item in body["data"]], expected)
    assert [item["index"] for item in body["data"]] == [0, 1]
    assert body["usage"]["image_pixels"] == 2 * 24 * 20
    assert set(body["usage"]) == {"text_tokens", "image_pixels", "video_pixels", "total_tokens"}


async def test_voyage_input_type_and_output(ask: Post, vectors: Post) -> None:
    inputs = [{"content": [{"type": "text", "text": "a"}]}]
    body = await ask("/v1/multimodalembeddings", inputs=inputs, input_type="query", output_dimension=16)
    np.testing.assert_array_equal(body["data"][0]["embedding"], (await vectors("a", dimensions=16))[0])
    small = await ask("/v1/multimodalembeddings", inputs=inputs, input_type="query", output_dtype="int8")
    assert small["data"][0]["embedding"] == (await vectors("a", encoding_format="int8"))[0].tolist()
    encoded = await ask("/v1/multimodalembeddings", inputs=inputs, input_type="query", output_encoding="base64")
    floats = np.frombuffer(base64.b64decode(encoded["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(floats, (await vectors("a"))[0].astype(np.float32))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "inputs: must be an array, but is null"),
        ({"inputs": [{"content": "a"}]}, "inputs[0].content: must be an array of content parts"),
        ({"inputs": [{"content": [{"type": "audio_url", "audio_url": "x"}]}]}, "'audio_url'"),
        (
            {"inputs": [{"content": [{"type": "text", "text": "a"}]}], "truncation": "yes"},
            "truncation: must be a boolean",
        ),
        (
            {
                "inputs": [{"content": [{"type": "text", "text": "a"}]}],
                "output_dtype": "int8",
                "output_encoding": "base64",
            },
            "output_encoding: is offered for output_dtype 'float' only",
        ),
    ],
)
async def test_voyage_faults_have_voyage_s_shape(refused: Post, body: dict[str, Any], says: str) -> None:
    answer = await refused("/v1/multimodalembeddings", **body)
    assert set(answer) == {"detail"}
    assert says in answer["detail"]


# Jina


async def test_jina_fields(ask: Post, vectors: Post, png: Picture, uri: Picture) -> None:
    """Its client sends bare base64, its own task names, and embedding_type."""
    body = await ask(
        "/v1/embeddings",
        input=[{"text": "a"}, {"image": png(1)}],
        task="retrieval.passage",
        embedding_type="float",
        normalized=True,
        truncate=True,
    )
    expected = await vectors("a", {"image": uri(1)}, input_type="document")
    np.testing.assert_array_equal([item["embedding"] for item in body["data"]], expected)
    query = await ask("/v1/embeddings", input=["a"], task="retrieval.query", embedding_type=["ubinary"])
    bits = np.unpackbits(np.array(query["data"][0]["embedding"], dtype=np.uint8))
    np.testing.assert_array_equal(bits, (await vectors("a"))[0] > 0)


async def test_jina_several_embedding_types_in_one_request(ask: Post) -> None:
    types = ["float", "ubinary", "base64", "float"]
    (one,) = (await ask("/v1/embeddings", input=["a"], embedding_type=types))["data"]
    assert list(one["embedding"]) == ["float", "ubinary", "base64"]
    for name, written in one["embedding"].items():
        (alone,) = (await ask("/v1/embeddings", input=["a"], embedding_type=name))["data"]
        assert written == alone["embedding"], name


async def test_voyage_texts_as_its_client_sends_them(ask: Post, vectors: Post) -> None:
    long = "cat " * 9000
    body = await ask(
        "/v1/embeddings",
        input=["a cat", long],
        input_type="document",
        truncation=True,
        output_dimension=16,
        output_dtype=None,
    )
    expected = await vectors("a cat", long, input_type="document", truncate="end", dimensions=16)
    np.testing.assert_array_equal([item["embedding"] for item in body["data"]], expected)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"task": "retrieval.query", "input_type": "document"}, "input_type"),
        ({"embedding_type": ["float", "bits"]}, "embedding_type[1]"),
        ({"embedding_type": []}, "embedding_type"),
        ({"embedding_type": "float", "encoding_format": "base64"}, "embedding_type"),
        ({"truncate": "middle"}, "truncate"),
        ({"truncate": "end", "truncation": False}, "truncation"),
        ({"truncation": "yes"}, "truncation"),
        ({"dimensions": 16, "output_dimension": 16}, "output_dimension"),
        ({"output_dimension": 0}, "output_dimension"),
        ({"truncate": 3}, "truncate"),
        ({"normalized": False}, "normalized"),
    ],
)
async def test_jina_contradictions_are_refused(refused: Post, body: dict[str, Any], param: str) -> None:
    assert (await refused("/v1/embeddings", input="a", **body))["error"]["param"] == param


# Rerank and score


async def test_rerank_orders_by_cosine(ask: Post, vectors: Post, uri: Picture) -> None:
    documents = ["one", {"image": uri(1)}, "two", "query"]
    query = (await vectors("query"))[0]
    cosines = (await vectors(*documents, input_type="document")) @ query
    body = await ask("/v1/rerank", query="query", documents=documents)
    assert [result["index"] for result in body["results"]] == np.argsort(-cosines).tolist()
    scores = [result["relevance_score"] for result in body["results"]]
    np.testing.assert_allclose(scores, sorted(cosines, reverse=True), atol=1e-6)
    assert body["data"] == body["results"]  # Voyage's client reads data
    assert body["usage"]["total_tokens"] > 0
    cohere = await ask("/v2/rerank", query="query", documents=documents)
    assert cohere["results"] == body["results"]
    assert set(cohere) == {"id", "results", "meta"}


async def test_rerank_returns_the_best_and_echoes_documents(ask: Post) -> None:
    body = await ask("/v1/rerank", query="a", documents=["b", "a", {"text": "c"}], top_n=2, return_documents=True)
    assert len(body["results"]) == 2
    for result in body["results"]:
        assert result["document"] == {"text": ["b", "a", "c"][result["index"]]}
    assert len((await ask("/v1/rerank", query="a", documents=["b"], top_k=9))["results"]) == 1


async def test_rerank_takes_an_instruction_for_the_query(ask: Post, vectors: Post) -> None:
    body = await ask("/v1/rerank", query="a", documents=["b"], instruction="By colour.")
    query = (await vectors("a", instruction="By colour."))[0]
    expected = float((await vectors("b", input_type="document"))[0] @ query)
    assert body["results"][0]["relevance_score"] == pytest.approx(expected, abs=1e-6)


async def test_score_one_to_many_and_pairs(ask: Post, vectors: Post) -> None:
    queries, documents = await vectors("a", "b"), await vectors("c", "d", input_type="document")
    many = await ask("/v1/score", text_1="a", text_2=["c", "d"])
    np.testing.assert_allclose([item["score"] for item in many["data"]], documents @ queries[0], atol=1e-6)
    pairs = await ask("/v1/score", queries=["a", "b"], documents=["c", "d"])
    expected = (queries * documents).sum(axis=1)
    np.testing.assert_allclose([item["score"] for item in pairs["data"]], expected, atol=1e-6)
    assert {item["object"] for item in pairs["data"]} == {"score"}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/rerank", {"documents": ["a"]}, "query: is required"),
        ("/v1/rerank", {"query": "a"}, "documents: must be an array"),
        ("/v1/rerank", {"query": "", "documents": ["a"]}, "query: text must not be empty"),
        ("/v1/rerank", {"query": "a", "documents": ["a", ""]}, "documents[1]: text must not be empty"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": 1, "top_k": 1}, "not both"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": 0}, "top_n: must be at least 1"),
        ("/v1/score", {"text_1": "a"}, "exactly one of text_2, data_2, documents is needed, but none"),
        ("/v1/score", {"text_1": "a", "queries": "b", "text_2": "c"}, "text_1 and queries are given"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "text_1: must be one, or as many as the 1 of text_2"),
        ("/v1/score", {"text_1": "a", "text_2": ["c", ""]}, "text_2[1]: text must not be empty"),
    ],
)
async def test_scoring_faults_name_the_offender(refused: Post, path: str, body: dict[str, Any], says: str) -> None:
    assert says in (await refused(path, **body))["error"]["message"]


# Truncation


async def test_long_texts_are_cut_where_asked_and_refused_by_default(ask: Post, refused: Post, vectors: Post) -> None:
    words = " ".join(["word"] * 20_000)
    error = (await refused("/v1/embeddings", input=words))["error"]
    assert error["code"] == "context_length_exceeded"
    for end, kept in (("end", f"first {words}"), ("start", f"{words} last")):
        (cut,) = await vectors(kept, truncate=end)
        (other,) = await vectors(words, truncate=end)
        assert not np.allclose(cut, other), "the end that is kept decides the vector"
    (same,) = await vectors("short", truncate="end")
    np.testing.assert_array_equal(same, (await vectors("short"))[0])
    body = await ask("/v1/multimodalembeddings", inputs=[{"content": [{"type": "text", "text": words}]}])
    assert body["usage"]["total_tokens"] == 8192
