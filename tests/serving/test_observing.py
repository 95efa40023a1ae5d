"""What an operator sees: metrics, log lines, traces; numbers and names, never content."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mllm_embed.embedder import Embedder
from mllm_embed_serving.access.keys import KeyLimits, given_keys
from mllm_embed_serving.app import create_app
from mllm_embed_serving.logs import ACCESS, JsonFormatter
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.tracing import OpenTelemetryTracer

pytestmark = pytest.mark.fast

Post = Callable[..., Any]
SECRET = "what nobody else may read"


async def test_stages_batches_and_the_engine_are_measured(
    client: httpx.AsyncClient, embed: Post, uri: Callable[..., str], embedder: Embedder
) -> None:
    await embed(input=["a", "b", {"image": uri(1)}])
    lines = (await client.get("/metrics")).text.splitlines()
    for line in (
        'mllm_embed_stage_seconds_count{stage="render"} 3.0',
        'mllm_embed_stage_seconds_count{stage="engine"} 3.0',
        'mllm_embed_stage_seconds_count{stage="decode"} 1.0',
        "mllm_embed_request_items_count 1.0",
        "mllm_embed_request_items_sum 3.0",
        "mllm_embed_engine_prompts_count 3.0",
        "mllm_embed_engine_up 1.0",
        "mllm_embed_engine_restarts 0.0",
        "mllm_embed_queued_items 0.0",
    ):
        assert line in lines, line
    await embedder.backend.aclose()
    assert "mllm_embed_engine_up 0.0" in (await client.get("/metrics")).text


async def test_the_log_tells_of_requests_without_their_content(
    embedder: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ServerSettings(api_keys=given_keys(["k"], KeyLimits()))
    transport = httpx.ASGITransport(create_app(embedder, settings))
    headers = {"authorization": "Bearer k", "x-request-id": "mine"}
    with caplog.at_level(logging.DEBUG):
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            body = {"model": "fake", "input": [SECRET, "dog"], "instruction": SECRET}
            tokens = (await client.post("/v1/embeddings", json=body)).json()["usage"]["total_tokens"]
            await client.post("/v1/embeddings", json={**body, "input": [SECRET, ""]})
            await client.get(f"/{SECRET}")
    access = [record for record in caplog.records if record.name == ACCESS.name]
    lines = [json.loads(JsonFormatter().format(record)) for record in access]
    first, second, third = lines
    assert first["level"] == "info"
    assert {name: first[name] for name in ("request_id", "key", "method", "route", "status")} == {
        "request_id": "mine",
        "key": "key-1",
        "method": "POST",
        "route": "/v1/embeddings",
        "status": 200,
    }
    assert (first["items"], first["tokens"], first["images"]) == (2, tokens, 0)
    assert (second["status"], third["status"], third["route"]) == (400, 404, "unmatched")
    assert SECRET not in "".join(record.getMessage() for record in access)
    assert "status=200" in access[0].getMessage()


def test_a_traceback_fits_into_one_json_line() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", None, info)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "failed"
    assert "ValueError" in json.loads(line)["traceback"]


async def test_traces_follow_a_request_through_its_stages(embedder: Embedder, uri: Callable[..., str]) -> None:
    spans = InMemorySpanExporter()
    transport = httpx.ASGITransport(create_app(embedder, ServerSettings(), OpenTelemetryTracer(spans)))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        body = {"model": "fake", "input": [{"text": SECRET, "image": uri(1)}]}
        headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        assert (await client.post("/v1/embeddings", json=body, headers=headers)).status_code == 200
    found = {span.name: span for span in spans.get_finished_spans()}
    assert set(found) == {"POST", "decode", "engine"}
    assert {f"{span.context.trace_id:032x}" for span in found.values() if span.context is not None} == {trace}
    request = found["POST"]
    assert request.attributes is not None
    assert request.attributes["route"] == "/v1/embeddings"
    assert request.attributes["status"] == 200
    assert request.context is not None
    for stage in ("decode", "engine"):
        parent = found[stage].parent
        assert parent is not None
        assert parent.span_id == request.context.span_id
    assert SECRET not in "".join(span.to_json() for span in found.values())
