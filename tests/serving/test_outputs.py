"""`outputs` of /v1/embeddings: multivectors and words beside, or instead of, the dense vector."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from mllm_embed.embedder import Embedder
from mllm_embed.types import EmbedInput, Image, Outputs
from mllm_embed.vectors import from_base64
from mllm_embed_serving.settings import ServerSettings

pytestmark = pytest.mark.fast

Post = Callable[..., Any]
Picture = Callable[..., str]
ALL = ["dense", "multivector", "lexical"]


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(max_multivector_numbers=64 * 40)


def matrix(item: dict[str, Any]) -> NDArray[np.float32]:
    return np.array(item["multivector"], dtype=np.float32)


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["param"], error["message"]


async def test_every_item_has_the_outputs_that_the_library_gives(embed: Post, embedder: Embedder, uri: Picture) -> None:
    response = await embed(input=["a cat", {"image": uri()}], outputs=ALL, lexical_top_k=3)
    wanted = Outputs(multivector=True, lexical=3)
    expected = await embedder.aembed([EmbedInput.of("a cat"), EmbedInput.of(Image(uri()))], outputs=wanted)
    for item, one in zip(response.json()["data"], expected, strict=True):
        assert one.multivector is not None
        assert one.lexical is not None
        np.testing.assert_allclose(item["embedding"], one.vector, atol=1e-6)
        np.testing.assert_allclose(matrix(item), one.multivector, atol=1e-6)
        assert item["lexical"] == pytest.approx(dict(one.lexical))
        assert list(item["lexical"].values()) == sorted(item["lexical"].values(), reverse=True)


async def test_the_vector_is_the_same_whatever_is_beside_it(embed: Post) -> None:
    alone, beside = await embed(input="a cat"), await embed(input="a cat", outputs=ALL)
    assert alone.json()["data"][0]["embedding"] == beside.json()["data"][0]["embedding"]
    assert alone.json()["usage"] == beside.json()["usage"]
    assert alone.json()["data"][0].keys() == {"object", "index", "embedding"}


async def test_the_vector_can_be_left_out(embed: Post) -> None:
    (item,) = (await embed(input="a cat", outputs=["lexical"])).json()["data"]
    assert item["embedding"] is None
    assert "multivector" not in item
    assert 0 < len(item["lexical"]) <= 32


async def test_equal_items_under_way_together_keep_their_own_outputs(embed: Post) -> None:
    """What is in flight, or cached, for one kind of outputs is not handed to a request for another."""
    kinds = (["dense"], ALL, ["dense", "multivector"], ["dense", "lexical"])
    for _ in range(2):
        for wanted, response in zip(
            kinds, await asyncio.gather(*(embed(input="a cat", outputs=kind) for kind in kinds)), strict=True
        ):
            (item,) = response.json()["data"]
            assert item.keys() == {"object", "index", "embedding"} | {*wanted} - {"dense"}


@pytest.mark.parametrize("encoding", ["base64", "int8", "binary"])
async def test_a_multivector_is_written_like_vectors(embed: Post, encoding: str) -> None:
    (item,) = (await embed(input="a cat", outputs=ALL, encoding_format=encoding)).json()["data"]
    assert len(item["multivector"]) == len("a cat")
    assert {type(vector) for vector in item["multivector"]} == {type(item["embedding"])}
    assert {len(vector) for vector in item["multivector"]} == {len(item["embedding"])}
    if encoding == "base64":
        (plain,) = (await embed(input="a cat", outputs=ALL)).json()["data"]
        decoded = np.stack([from_base64(vector) for vector in item["multivector"]])
        np.testing.assert_array_equal(decoded, matrix(plain))


async def test_dimensions_cut_both(embed: Post) -> None:
    (item,) = (await embed(input="a cat", outputs=ALL, dimensions=16)).json()["data"]
    assert matrix(item).shape == (5, 16)
    np.testing.assert_allclose(np.linalg.norm(matrix(item), axis=1), 1, atol=1e-6)


async def test_more_numbers_than_the_limit_are_refused_with_the_way_out(embed: Post) -> None:
    texts = ["x" * 20, "y" * 20, "z"]
    status, param, message = refusal(await embed(input=texts, outputs=["multivector"]))
    assert (status, param) == (400, "outputs")
    assert message.startswith("outputs: multivectors may hold at most 2,560 numbers per request, but hold 2,624 or")
    assert message.endswith("send fewer items, or set dimensions")
    assert (await embed(input=texts, outputs=["multivector"], dimensions=32)).status_code == 200
    assert (await embed(input=texts[:2], outputs=["multivector"])).status_code == 200
    assert (await embed(input=texts, outputs=["lexical"])).status_code == 200


async def test_the_limit_refuses_a_partial_request_as_a_whole(embed: Post) -> None:
    response = await embed(input=["x" * 41, "", "y"], outputs=["multivector"], partial=True)
    assert refusal(response)[:2] == (400, "outputs")
    data = (await embed(input=["x", "", "y"], outputs=["multivector"], partial=True)).json()["data"]
    assert [item["object"] for item in data] == ["embedding", "error", "embedding"]


@pytest.mark.parametrize(
    ("body", "param", "problem"),
    [
        ({"outputs": "lexical"}, "outputs", "must be an array, but is a string"),
        ({"outputs": []}, "outputs", "must not be an empty array"),
        ({"outputs": ["dense", "sparse"]}, "outputs[1]", "must be one of 'dense', 'multivector', 'lexical'"),
        ({"outputs": [1]}, "outputs[0]", "must be a string, but is an integer"),
        ({"outputs": [None]}, "outputs[0]", "must be a string, but is null"),
        ({"outputs": ["lexical"], "lexical_top_k": 0}, "lexical_top_k", "must be at least 1, but is 0"),
        ({"outputs": ["lexical"], "lexical_top_k": 1025}, "lexical_top_k", "must be at most 1024, but is 1025"),
        ({"outputs": ALL, "truncate": "windows"}, "outputs", "give one dense vector together, and nothing else"),
        ({"lexical_top_k": 5}, "lexical_top_k", "needs 'lexical' among the outputs"),
    ],
)
async def test_what_cannot_be_given_is_refused(embed: Post, body: dict[str, Any], param: str, problem: str) -> None:
    status, named, message = refusal(await embed(input="a", **body))
    assert (status, named) == (400, param)
    assert problem in message
