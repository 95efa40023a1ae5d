"""Malformed requests without end: good ones of every dialect, with values replaced or removed, and damaged JSON."""

from __future__ import annotations

import base64
import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from tests.library.test_documents import pdf
from tests.library.test_video import animation

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

PAPER = f"data:application/pdf;base64,{base64.b64encode(pdf(0, 9, size=(36, 36))).decode()}"


def valid(picture: str, model: str = "fake", width: int = 16) -> dict[str, list[dict[str, Any]]]:
    """One good body per way to ask, by route."""
    image = {"type": "image_url", "image_url": {"url": picture}}
    part = {**image, "region": {"box": [1, 2, 3.5, 4]}}
    whole = {"text": "cat", "image": picture, "region": {"point": [1, 1]}, "instruction": "Look."}
    video = {"type": "video_url", "video_url": {"url": MOVING}, "frames": 2, "fps": 1.5}
    paper = {"type": "document_url", "document_url": {"url": PAPER}, "pages": [1], "dpi": 36}
    items: list[Any] = ["cat", whole, [TEXT, part, video], [paper], [70, 71]]
    content = [{"content": [TEXT, image]}, {"content": [TEXT]}]
    openai = {"model": model, "input": items, "dimensions": width, "encoding_format": "float", "truncate": "end"}
    messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": [image, TEXT]}]
    return {
        "/v1/embeddings": [
            {**openai, "task": "retrieval.query", "partial": True, "vector_per": "page", "user": "u"},
            {"model": model, "messages": [messages, messages], "input_type": "document"},
        ],
        "/v2/embed": [
            {"model": model, "input_type": "search_query", "texts": ["cat"], "embedding_types": ["int8", "float"]},
            {
                "model": model,
                "input_type": "image",
                "images": [picture],
                "output_dimension": width,
                "truncate": "START",
            },
            {"model": model, "input_type": "search_document", "inputs": content},
        ],
        "/v1/multimodalembeddings": [
            {"model": model, "inputs": content, "input_type": "query", "truncation": True, "output_dtype": "binary"}
        ],
        "/v1/rerank": [{"model": model, "query": "cat", "documents": items, "top_n": 2, "return_documents": True}],
        "/v2/rerank": [{"model": model, "query": items[1], "documents": ["cat", "dog"], "top_n": 1}],
        "/v1/score": [
            {"model": model, "text_1": "cat", "text_2": items},
            {"model": model, "queries": "a", "documents": "b"},
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
    many = 40  # once only: 40 times 40 times 40 times a long text would fill the memory
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        path = draw.choice(list(places(body)))
        if not path:
            return draw.choice([body, copy.deepcopy(draw.choice(JUNK)), [body]])
        parent = body
        for key in path[:-1]:
            parent = parent[key]
        match draw.randrange(5):
            case 0 if isinstance(parent, dict):
                del parent[path[-1]]
            case 1 if isinstance(parent, dict):
                # A copy: junk that later mutations changed in place would come to hold itself, without end.
                parent[draw.choice(NAMES)] = copy.deepcopy(draw.choice(JUNK))
            case 2:
                times = draw.choice((1, 2, many))
                parent[path[-1]] = [parent[path[-1]]] * times
                many = 2 if times == many else many
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
