from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mllm_embed.embedder import Embedder
from mllm_embed.errors import Overloaded
from mllm_embed_serving.access.keys import KeyLimits, given_keys
from mllm_embed_serving.settings import ServerSettings
from tests.error_shape import check_error

pytestmark = pytest.mark.fast

Post = Callable[..., Any]


async def test_models(client: httpx.AsyncClient, embedder: Embedder) -> None:
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    (card,) = listed["data"]
    assert (await client.get("/v1/models/fake")).json() == card
    recipe = embedder.model_dir.recipe
    assert card["id"] == "fake"
    assert card["object"] == "model"
    assert isinstance(card["created"], int)
    assert card["owned_by"] == "mllm-embed"
    assert card["dimensions"] == 64
    assert card["matryoshka_dimensions"] == [16, 32]
    assert card["max_tokens"] == recipe.max_tokens
    assert (card["template"], card["template_version"]) == (recipe.template, recipe.template_version)
    assert card["pooling"] == "last_token"
    assert card["fingerprint"] == embedder.model_dir.fingerprint
    assert card["backend"] == "fake"


@pytest.mark.parametrize("name", ["nope", "hub/name", "a%20b"])
async def test_an_unknown_model_has_no_card(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/v1/models/{name}")
    check_error(answer.json(), answer.status_code, expected=404, code="model_not_found", param="model", says="'fake'")


async def test_an_unknown_route(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/nope")
    check_error(answer.json(), answer.status_code, expected=404, code="unknown_url", says="/v1/nope")


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/embeddings"), ("POST", "/v1/models"), ("DELETE", "/health")])
async def test_a_wrong_method(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    check_error(answer.json(), answer.status_code, expected=405, code="method_not_allowed", says=(method, path))


async def test_the_request_id_is_made_or_kept(client: httpx.AsyncClient) -> None:
    made = (await client.get("/health")).headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f]{32}", made)
    kept = await client.get("/nope", headers={"x-request-id": "trace-1.2:3"})
    assert kept.headers["x-request-id"] == "trace-1.2:3"
    for hostile in ("a b", "x" * 129, "é"):
        answer = await client.get("/health", headers={b"x-request-id": hostile.encode("latin-1")})
        assert answer.headers["x-request-id"].startswith("req_")
    assert int(kept.headers["x-processing-ms"]) >= 0
    assert kept.headers["openai-processing-ms"] == kept.headers["x-processing-ms"]


async def test_health_follows_the_engine(client: httpx.AsyncClient, embed: Post, embedder: Embedder) -> None:
    assert (await client.get("/health")).status_code == 200
    await embedder.backend.aclose()
    for answer in (await client.get("/health"), await embed(input="a")):
        check_error(answer.json(), answer.status_code, expected=503, code="engine_unavailable", says="request id")


async def test_a_full_engine_is_429_with_a_time_to_retry(
    embed: Post, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise Overloaded("9 prompts are under way, and at most 9 may be")

    monkeypatch.setattr(embedder.backend, "embed", full)
    answer = await embed(input="a")
    check_error(answer.json(), answer.status_code, expected=429, code="engine_overloaded", says="at most 9")
    assert answer.headers["retry-after"] == "1"


async def test_a_bug_is_a_fixed_text_for_the_caller_and_a_traceback_in_the_log(
    embed: Post, embedder: Embedder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(embedder.backend, "embed", broken)
    answer = await embed(input="a")
    request_id = answer.headers["x-request-id"]
    check_error(answer.json(), answer.status_code, expected=500, code="internal_error", says=request_id)
    assert "secret" not in answer.text
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert request_id in record.getMessage()
    assert record.exc_info is not None


async def test_metrics_count(client: httpx.AsyncClient, embed: Post, uri: Callable[..., str]) -> None:
    tokens = (await embed(input=["a", {"image": uri()}, {"text": "b", "image": uri()}])).json()["usage"]["total_tokens"]
    await embed(input="")
    await client.get("/v1/models/nope")
    await client.get("/nope/1")
    lines = (await client.get("/metrics")).text.splitlines()
    for line in (
        'mllm_embed_requests_total{route="/v1/embeddings",status="200"} 1.0',
        'mllm_embed_requests_total{route="/v1/embeddings",status="400"} 1.0',
        'mllm_embed_requests_total{route="/v1/models/{name:path}",status="404"} 1.0',
        'mllm_embed_requests_total{route="unmatched",status="404"} 1.0',
        'mllm_embed_request_seconds_count{route="/v1/embeddings"} 2.0',
        "mllm_embed_requests_in_flight 1.0",
        "mllm_embed_items_total 3.0",
        "mllm_embed_images_total 2.0",
        f"mllm_embed_tokens_total {float(tokens)}",
    ):
        assert line in lines, line


class TestApiKey:
    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(api_keys=given_keys(["other", "secret"], KeyLimits()))

    @pytest.mark.parametrize(
        "path",
        ["/v1/embeddings", "/v1/models", "/v1/models/fake", "/metrics", "/openapi.json", "/docs", "/nope", "//health"],
    )
    @pytest.mark.parametrize(
        "header", [None, "Bearer ", "Bearer wrong", "Basic secret", "secret", "Bearer secret2", "é"]
    )
    async def test_every_route_asks_for_it(self, client: httpx.AsyncClient, path: str, header: str | None) -> None:
        headers = {} if header is None else {b"authorization": header.encode("latin-1")}
        answer = await client.get(f"http://test{path}", headers=headers)
        check_error(answer.json(), answer.status_code, expected=401, code="invalid_api_key", says="API key")
        assert answer.headers["x-request-id"]

    async def test_it_opens_them(self, client: httpx.AsyncClient) -> None:
        client.headers["authorization"] = "Bearer secret"
        body = {"model": "fake", "input": "a"}
        assert (await client.post("/v1/embeddings", json=body)).status_code == 200
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200

    async def test_health_asks_for_none(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/health")).status_code == 200


async def test_the_schema_describes_the_request(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    body = schema["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"input", "messages", "instruction", "task", "input_type", "dimensions"} <= set(body["properties"])


async def test_every_route_describes_its_answers_and_none_says_422(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            assert {"200", "400", "401", "429", "503"} <= set(answers), (method, path)
            assert "422" not in answers
            for status, answer in answers.items():
                (media,) = answer["content"].values()
                assert media["schema"], (method, path, status)
    assert "HTTPValidationError" not in json.dumps(schema)
