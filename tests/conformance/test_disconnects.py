"""Callers who hang up, in front of the real engine: what nobody waits for any more is not computed."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import httpx
import pytest
from openai import OpenAI

from mllm_embed.model_dir import ModelDir
from tests.conformance.conftest import KEY, wait_until

pytestmark = pytest.mark.engine

TEXTS = [f"a green triangle over a yellow star, number {number}" for number in range(600)]


def test_the_engine_drops_what_a_caller_asked_for_who_has_hung_up(
    url: str, client: OpenAI, model_dir: ModelDir, metric: Callable[[str], float]
) -> None:
    """What had been computed by then is known; the rest, which the engine was spared, is computed when asked for."""
    name, place = model_dir.recipe.name, httpx.URL(url)
    gone = 'mllm_embed_requests_total{route="/v1/embeddings",status="499"}'
    before = metric(gone)
    body = json.dumps({"model": name, "input": TEXTS})
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}"
    with socket.create_connection((place.host, place.port or 80)) as caller:
        caller.sendall(f"{head}\r\n\r\n{body}".encode())
        wait_until(lambda: metric("mllm_embed_queued_items") == len(TEXTS))
    wait_until(lambda: metric("mllm_embed_queued_items") == 0)
    wait_until(lambda: metric(gone) == before + 1)
    computed = metric("mllm_embed_cache_misses_total")
    client.embeddings.create(model=name, input=TEXTS)
    assert metric("mllm_embed_cache_misses_total") > computed, "not all of it was known, nor under way"
