"""Thousands of malformed requests in every dialect: never a 5xx, never another answer than /openapi.json describes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]  # its types are a package of their own
import pytest

from mllm_embed_serving.settings import ServerSettings
from tests.malformed import broken, mutated, valid

pytestmark = pytest.mark.fast

PER_DIALECT = 400


def schema_of(answer: dict[str, Any]) -> Any:
    return answer["content"]["application/json"]["schema"]


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(max_items=50, max_text_chars=4000)


@pytest.mark.parametrize("route", valid(""))
async def test_whatever_is_sent_is_never_our_fault(
    client: httpx.AsyncClient, uri: Callable[..., str], route: str
) -> None:
    draw = random.Random(route)
    described = (await client.get("/openapi.json")).json()["paths"][route]["post"]["responses"]
    as_described = {status: jsonschema.Draft202012Validator(schema_of(answer)) for status, answer in described.items()}
    bodies = valid(uri(1, 12, 10))[route]
    before = [await client.post(route, json=body) for body in bodies]
    for answer in before:
        as_described[str(answer.status_code)].validate(answer.json())
    statuses: Counter[int] = Counter()
    for _ in range(PER_DIALECT):
        content = broken(mutated(draw.choice(bodies), draw), draw)
        answer = await client.post(route, content=content)
        assert answer.status_code < 500, content[:500]
        as_described[str(answer.status_code)].validate(answer.json())
        statuses[answer.status_code] += 1
    assert statuses[400] + statuses[404] > PER_DIALECT / 2, "most of it is malformed"
    for body, first in zip(bodies, before, strict=True):
        again = await client.post(route, json=body)
        assert again.status_code == first.status_code
        assert {**again.json(), "id": None, "created": None} == {**first.json(), "id": None, "created": None}


async def test_the_good_bodies_are_good(client: httpx.AsyncClient, uri: Callable[..., str]) -> None:
    for route, bodies in valid(uri(1, 12, 10)).items():
        for body in bodies:
            answer = await client.post(route, json=body)
            assert answer.status_code == (404 if route == "/v1/batches" else 200), answer.text
