"""Cohere's /v2/embed: one of texts, images or inputs; several embedding types per vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mllm_embed.tasks import DEFAULT, Role
from mllm_embed.types import Embedding, Truncate
from mllm_embed_serving import fields
from mllm_embed_serving.content import ItemReader
from mllm_embed_serving.errors import InvalidParameter
from mllm_embed_serving.schemas.common import (
    WRITERS,
    EmbeddingRequest,
    Items,
    array_items,
    check_count,
    only_one,
    read_encodings,
    read_items,
)
from mllm_embed_serving.settings import ServerSettings

INPUT_TYPES: dict[str, tuple[str, Role]] = {
    "search_query": (DEFAULT, "query"),
    "search_document": (DEFAULT, "target"),
    "classification": ("classification", "query"),
    "clustering": (DEFAULT, "target"),
    "image": (DEFAULT, "target"),
}
"""Values of `input_type`, and our task and side for each."""
_TRUNCATIONS: dict[str, Truncate] = {"NONE": "none", "START": "start", "END": "end"}
_SOURCES = ("texts", "images", "inputs")


@dataclass(frozen=True, kw_only=True)
class CohereRequest:
    """A checked request.

    Attributes:
        wanted: what to embed, and how.
        types: the embedding types asked for, in order.
        texts: echoed in the answer where the request had texts.
    """

    wanted: EmbeddingRequest
    types: tuple[str, ...]
    texts: list[str] | None


def select_items(body: dict[str, Any], max_items: int) -> Items:
    """Find the items of a request.

    Raises:
        InvalidParameter: none or several of texts, images and inputs; empty, or more than `max_items`.
    """
    source = only_one(body, _SOURCES, "texts")
    items = array_items(body[source], source)
    check_count(items, max_items)
    return items


def parse_request(body: dict[str, Any], items: Items, reader: ItemReader, settings: ServerSettings) -> CohereRequest:
    """Check the other fields of a request, and read its items.

    Raises:
        InvalidParameter: a field is of a wrong type, out of range, or not supported.
        InputError: an item is refused, with its index.
    """
    if body.get("input_type") is None:
        raise InvalidParameter(f"is required; it is one of {', '.join(map(repr, INPUT_TYPES))}", param="input_type")
    kind = fields.choice(body["input_type"], "input_type", {name: name for name in INPUT_TYPES}, "")
    task, role = INPUT_TYPES[kind]
    if body.get("max_tokens") is not None:
        raise InvalidParameter(
            "is not supported: texts are cut at the model's own limit, see truncate", param="max_tokens"
        )

    readers = {"texts": reader.text, "images": reader.image, "inputs": reader.content_object}
    wanted = EmbeddingRequest(
        task=task,
        role=role,
        dimensions=fields.positive_integer(body.get("output_dimension"), "output_dimension"),
        truncate=fields.choice(body.get("truncate"), "truncate", _TRUNCATIONS, "END"),
        inputs=read_items(items, readers[items.field], settings),
    )
    return CohereRequest(wanted=wanted, types=_types(body), texts=body.get("texts"))


def response_body(asked: CohereRequest, embeddings: Sequence[Embedding], request_id: str) -> dict[str, Any]:
    """Return Cohere's answer: every vector in every type asked for."""
    vectors = {name: [WRITERS[name](item.vector) for item in embeddings] for name in asked.types}
    tokens, images = sum(item.tokens for item in embeddings), asked.wanted.images
    body: dict[str, Any] = {
        "id": request_id,
        "response_type": "embeddings_by_type",
        "embeddings": vectors,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens, "images": images}},
    }
    if any(item.frame_times for item in embeddings):
        body["frame_times"] = [item.frame_times for item in embeddings]
    return body if asked.texts is None else {**body, "texts": asked.texts}


def error_body(message: str, request_id: str) -> dict[str, Any]:
    """Return an error in Cohere's shape."""
    return {"id": request_id, "message": message}


def _types(body: dict[str, Any]) -> tuple[str, ...]:
    value = body.get("embedding_types")
    return ("float",) if value is None else read_encodings(value, "embedding_types")
