"""Thousands of malformed requests in every dialect: never a 5xx, never another answer than /openapi.json describes."""

from __future__ import annotations

import base64
import copy
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]  # its types are a package of their own
import pytest

from mllm_embed_serving.settings import ServerSettings
from tests.library.test_video import animation

pytestmark = pytest.mark.fast

PER_DIALECT = 400
JUNK: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**63,
        -(2**70),
        1.5,
        1e308,
        "",
        " ",
        "a",
        "\x00",
        "\ud800",
        "🐱" * 9,
        "<|image_pad|>",
    ),
    *([], {}, [[]], [{}], [None], {"": None}, [[[[[]]]]], {"type": "text"}, {"text": "a"}, {"image": "a"}),
    *("data:", "data:image/png;base64,", "data:image/png;base64,AAAA", "http://127.0.0.1/", "file:///etc/passwd"),
    *(
        "../../etc/passwd",
        "[" * 50,
        "a" * 5000,
        [1] * 300,
        ["a"] * 70,
        {"url": "data:,"},
        {"url": None},
        {"content": []},
    ),
]
NAMES = ["model", "input", "task", "dimensions", "\ud800", "chat_template"]
TEXT = {"type": "text", "text": "cat"}
MOVING = f"data:image/gif;base64,{base64.b64encode(animation(2, 'GIF')).decode()}"


def valid(picture: str) -> dict[str, list[dict[str, Any]]]:
    """One good body per way to ask, by route."""
    image = {"type": "image_url", "image_url": {"url": picture}}
    part = {**image, "region": {"box": [1, 2, 3.5, 4]}}
    whole = {"text": "cat", "image": picture, "region": {"point": [1, 1]}, "instruction": "Look."}
    video = {"type": "video_url", "video_url": {"url": MOVING}, "frames": 2, "fps": 1.5}
    items: list[Any] = ["cat", whole, [TEXT, part, video], [70, 71]]
    content = [{"content": [TEXT, image]}, {"content": [TEXT]}]
    openai = {"model": "fake", "input": items, "dimensions": 16, "encoding_format": "float", "truncate": "end"}
    messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": [image, TEXT]}]
    return {
        "/v1/embeddings": [
            {**openai, "task": "retrieval.query", "partial": True, "user": "u"},
            {"model": "fake", "messages": [messages, messages], "input_type": "document"},
        ],
        "/v2/embed": [
            {"model": "fake", "input_type": "search_query", "texts": ["cat"], "embedding_types": ["int8", "float"]},
            {"model": "fake", "input_type": "image", "images": [picture], "output_dimension": 16, "truncate": "START"},
            {"model": "fake", "input_type": "search_document", "inputs": content},
        ],
        "/v1/multimodalembeddings": [
            {"model": "fake", "inputs": content, "input_type": "query", "truncation": True, "output_dtype": "binary"}
        ],
        "/v1/rerank": [{"model": "fake", "query": "cat", "documents": items, "top_n": 2, "return_documents": True}],
        "/v2/rerank": [{"model": "fake", "query": items[1], "documents": ["cat", "dog"], "top_n": 1}],
        "/v1/score": [
            {"model": "fake", "text_1": "cat", "text_2": items},
            {"model": "fake", "queries": "a", "documents": "b"},
        ],
        "/v1/batches": [
            {
                "input_file_id": "file-1",
                "endpoint": "/v1/embeddings",
                "completion_window": "24h",
                "metadata": {"a": "b"},
            }
        ],
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def mutated(body: Any, draw: random.Random) -> Any:
    """Replace, remove, repeat or wrap values at random places."""
    body = copy.deepcopy(body)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        path = draw.choice(list(places(body)))
        if not path:
            return draw.choice([body, draw.choice(JUNK), [body]])
        parent = body
        for key in path[:-1]:
            parent = parent[key]
        match draw.randrange(5):
            case 0 if isinstance(parent, dict):
                del parent[path[-1]]
            case 1 if isinstance(parent, dict):
                parent[draw.choice(["model", "input", "task", "dimensions", "\ud800", "chat_template"])] = draw.choice(
                    JUNK
                )
            case 2:
                parent[path[-1]] = [parent[path[-1]]] * draw.choice((1, 2, 40))
            case _:
                parent[path[-1]] = copy.deepcopy(draw.choice(JUNK))
    return body


def broken(body: Any, draw: random.Random) -> bytes:
    """Write a body as JSON, now and then damaged."""
    text = json.dumps(body).encode()
    match draw.randrange(12):
        case 0:
            return text[: draw.randrange(len(text) + 1)]
        case 1:
            position = draw.randrange(len(text) + 1)
            return text[:position] + bytes([draw.randrange(256)]) + text[position:]
    return text


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
