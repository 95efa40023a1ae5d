"""`partial: true`: an item that is refused spares the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from mllm_embed.embedder import Embedder
from mllm_embed.errors import BackendUnavailable
from tests.error_shape import check_error

pytestmark = pytest.mark.fast

Post = Callable[..., Any]
BROKEN = "data:image/png;base64,AAAA"


async def test_errors_stand_beside_vectors_in_the_order_of_the_items(embed: Post, uri: Callable[..., str]) -> None:
    items = ["cat", "", {"image": uri(1)}, {"image": BROKEN}, 3, {"text": "dog", "image": uri(2)}, "cat " * 9000]
    answer = await embed(input=items, partial=True)
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert [entry["index"] for entry in data] == list(range(len(items)))
    codes = {entry["index"]: entry["error"]["code"] for entry in data if entry["object"] == "error"}
    assert codes == {
        1: "invalid_input",
        3: "invalid_image",
        4: "invalid_parameter",
        6: "context_length_exceeded",
    }
    for index in (0, 2, 5):
        alone = (await embed(input=[items[index]])).json()["data"][0]
        assert data[index]["embedding"] == alone["embedding"]


async def test_an_items_error_is_the_one_that_would_refuse_the_request(embed: Post) -> None:
    refused = (await embed(input=["a", "b", {"image": BROKEN}])).json()
    (entry,) = (await embed(input=["a", "b", {"image": BROKEN}], partial=True)).json()["data"][2:]
    assert entry["embedding"] is None
    assert {"error": entry["error"]} == refused
    check_error(refused, 400, expected=400, code="invalid_image", param="input[2]")


async def test_usage_counts_what_was_embedded(embed: Post) -> None:
    whole = (await embed(input=["a", "b"])).json()["usage"]
    part = (await embed(input=["a", "", "b"], partial=True)).json()["usage"]
    assert part == whole
    nothing = (await embed(input=["", " "], partial=True)).json()
    assert nothing["usage"]["total_tokens"] == 0
    assert {entry["object"] for entry in nothing["data"]} == {"error"}


async def test_what_is_wrong_with_the_request_itself_still_refuses_it(embed: Post, embedder: Embedder) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"input": ["a"], "dimensions": 17}, "invalid_dimensions"),
        ({"input": []}, "invalid_parameter"),
        ({"input": ["a"], "task": "nope"}, "invalid_parameter"),
    ]
    for body, code in wrong:
        assert (await embed(**body, partial=True)).json()["error"]["code"] == code
    answer = await embed(input=["a"], partial="yes")
    check_error(answer.json(), answer.status_code, expected=400, code="invalid_parameter", param="partial")


async def test_a_dead_engine_is_not_the_fault_of_an_item(
    embed: Post, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dead(*_: Any) -> None:
        raise BackendUnavailable("gone")

    monkeypatch.setattr(embedder.backend, "embed", dead)
    assert (await embed(input=["a", ""], partial=True)).status_code == 503


async def test_voyages_dialect_has_it_too(client: httpx.AsyncClient) -> None:
    good = {"content": [{"type": "text", "text": "cat"}]}
    body = {"model": "fake", "inputs": [good, {"content": []}, good], "partial": True}
    data = (await client.post("/v1/multimodalembeddings", json=body)).json()["data"]
    assert [entry["object"] for entry in data] == ["embedding", "error", "embedding"]
    assert data[1]["error"]["param"] == "inputs[1].content"
    np.testing.assert_array_equal(data[0]["embedding"], data[2]["embedding"])
