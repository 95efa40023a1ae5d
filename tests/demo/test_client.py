from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from mllm_embed.errors import BackendError, BackendUnavailable
from mllm_embed_demo.client import ApiRefused, EmbeddingsClient, ModelCard, request_body

pytestmark = pytest.mark.fast

Answer = Callable[[httpx.Request], httpx.Response]


def client_of(answer: Answer, **options: Any) -> EmbeddingsClient:
    return EmbeddingsClient("http://api", transport=httpx.MockTransport(answer), **options)


def vectors(*rows: list[float]) -> dict[str, Any]:
    return {"data": [{"index": index, "embedding": row} for index, row in enumerate(rows)]}


def test_the_real_api_tells_its_model(client: EmbeddingsClient) -> None:
    card = client.card()
    assert (card.name, card.backend, card.dimensions, card.offered) == ("fake", "fake", 64, (64, 32, 16))
    assert card.fingerprint


def test_the_real_api_embeds_texts_and_pictures(client: EmbeddingsClient) -> None:
    found = client.embed("fake", ["a", "b", "a"], instruction="Find.", dimensions=16)
    assert found.shape == (3, 16)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[1])


def test_the_instruction_reaches_the_real_api(client: EmbeddingsClient) -> None:
    [one], [other] = (client.embed("fake", ["a"], instruction=text) for text in ("Find.", "Sort."))
    assert not np.allclose(one, other)


def test_the_real_api_tells_the_words_that_it_reads(client: EmbeddingsClient) -> None:
    found = client.words("fake", "cat cat", instruction="", most=2)
    assert len(found) == 2
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert set(found) <= set("cat")  # the fake tokenizer reads bytes


@pytest.mark.parametrize(
    "answer", [{"data": []}, {}, {"data": [{"lexical": [1]}]}, {"data": [{"lexical": {"a": "?"}}]}]
)
def test_words_that_cannot_be_read_are_no_answer(answer: Any) -> None:
    with pytest.raises(BackendUnavailable, match="no readable words"):
        client_of(lambda _: httpx.Response(200, json=answer)).words("m", "a", instruction="i", most=2)


def test_a_server_that_knows_no_words_gives_none() -> None:
    assert client_of(lambda _: httpx.Response(200, json=vectors([1, 0]))).words("m", "a", instruction="i", most=2) == {}


def test_the_request_is_complete_and_no_more() -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json=vectors([1, 0]))

    client_of(answer, api_key="secret").embed("m", [{"image": "data:x"}], instruction="Find.", dimensions=2)
    assert json.loads(sent[0].content) == {
        "model": "m",
        "input": [{"image": "data:x"}],
        "instruction": "Find.",
        "dimensions": 2,
        "encoding_format": "base64",
    }
    assert sent[0].headers["authorization"] == "Bearer secret"
    assert request_body("m", ["a"]) == {"model": "m", "input": ["a"]}


def test_numbers_are_sorted_by_index_and_normalised() -> None:
    rows = [{"index": 1, "embedding": [0, 2]}, {"index": 0, "embedding": [3, 0]}]
    found = client_of(lambda _: httpx.Response(200, json={"data": rows})).embed("m", ["a", "b"])
    assert found.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    "body", [{}, {"data": [{"index": 0}]}, {"data": [{"index": 0, "embedding": "?"}]}, {"data": []}, [], "no JSON"]
)
def test_an_answer_without_vectors_is_no_answer(body: Any) -> None:
    with pytest.raises(BackendError):
        client_of(lambda _: httpx.Response(200, json=body)).embed("m", ["a"])


def test_too_few_vectors_are_noticed() -> None:
    with pytest.raises(BackendUnavailable, match="1 vectors for 2 inputs"):
        client_of(lambda _: httpx.Response(200, json=vectors([1, 0]))).embed("m", ["a", "b"])


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, {"error": {"message": "dimensions must be 2"}}, ApiRefused, "^dimensions must be 2$"),
        (401, {"error": "no key"}, ApiRefused, "^no key$"),
        (422, {"detail": "bad"}, ApiRefused, "^bad$"),
        (413, "large", ApiRefused, "^HTTP 413$"),
        (503, {"error": {"message": "the engine is down"}}, BackendUnavailable, "failed: the engine is down"),
    ],
)
def test_the_servers_own_words_are_kept(status: int, body: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        client_of(lambda _: httpx.Response(status, json=body)).embed("m", ["a"])


@pytest.mark.parametrize(
    ("failure", "message"), [(httpx.ConnectError, "cannot be reached"), (httpx.ReadTimeout, "did not answer in time")]
)
def test_a_silent_server_is_named(failure: type[httpx.TransportError], message: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise failure("no")

    with pytest.raises(BackendUnavailable, match=f"http://api {message}"):
        client_of(answer).card()


def test_a_server_without_cards_is_known_by_the_models_name() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        known = request.url.path == "/v1/models"
        return httpx.Response(200, json={"data": [{"id": "org/m"}]}) if known else httpx.Response(404, json={})

    assert client_of(answer).card() == ModelCard(name="org/m")
    with pytest.raises(ApiRefused):
        client_of(answer, model="other").card()


def test_a_server_without_models_is_refused() -> None:
    with pytest.raises(BackendUnavailable, match="lists no model"):
        client_of(lambda _: httpx.Response(200, json={"data": []})).card()


def test_waiting_ends_when_the_server_answers_or_patience_does() -> None:
    told: list[float] = []
    answers = iter([httpx.ConnectError("no"), httpx.ConnectError("no")])

    def answer(_: httpx.Request) -> httpx.Response:
        for failure in answers:
            raise failure
        return httpx.Response(200, json={"data": [{"id": "m"}], "id": "m"})

    assert client_of(answer).wait(60, told.append, pause_s=0).name == "m"
    assert len(told) == 2

    def never(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    with pytest.raises(BackendUnavailable):
        client_of(never).wait(0, told.append, pause_s=0)


def test_the_address_may_end_with_the_version() -> None:
    assert {EmbeddingsClient(url).api_url for url in ("http://a", "http://a/", "http://a/v1", "http://a/v1/")} == {
        "http://a"
    }
