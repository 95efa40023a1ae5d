"""Voyage's /v1/multimodalembeddings: every input is an array of parts, fused into one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mllm_embed.tasks import DEFAULT, Role
from mllm_embed.types import Embedding
from mllm_embed_serving import fields
from mllm_embed_serving.content import ItemReader
from mllm_embed_serving.errors import InvalidParameter
from mllm_embed_serving.schemas.common import (
    WRITERS,
    DescribeError,
    EmbeddingRequest,
    EncodedRequest,
    ItemError,
    Items,
    array_items,
    check_count,
    read_each,
    read_items,
    used_tokens,
)
from mllm_embed_serving.settings import ServerSettings

_ROLES: dict[str, Role] = {"query": "query", "document": "target"}


def select_items(body: dict[str, Any], max_items: int) -> Items:
    """Find the items of a request: `inputs`.

    Raises:
        InvalidParameter: absent, empty, or more than `max_items`.
    """
    items = array_items(body.get("inputs"), "inputs")
    check_count(items, max_items)
    return items


def parse_request(body: dict[str, Any], items: Items, reader: ItemReader, settings: ServerSettings) -> EncodedRequest:
    """Check the other fields of a request, and read its items. Voyage cuts long texts unless told not to, and so do we.

    Raises:
        InvalidParameter: a field is of a wrong type, out of range, or not supported.
        InputError: an item is refused, with its index.
    """
    partial = fields.boolean(body.get("partial"), "partial", default=False)
    read = reader.content_object
    wanted = EmbeddingRequest(
        task=DEFAULT,
        role=fields.choice(body.get("input_type"), "input_type", _ROLES, "document"),
        dimensions=fields.positive_integer(body.get("output_dimension"), "output_dimension"),
        truncate="end" if fields.boolean(body.get("truncation"), "truncation", default=True) else "none",
        inputs=read_each(items, read, settings) if partial else read_items(items, read, settings),
    )
    return EncodedRequest(wanted=wanted, encoding=_encoding(body), partial=partial)


def response_body(
    asked: EncodedRequest, outcomes: Sequence[Embedding | ItemError], model: str, describe: DescribeError
) -> dict[str, Any]:
    """Return Voyage's answer; its client reads all four counts. Text tokens are all tokens, visual ones included."""
    tokens = used_tokens(outcomes)
    pixels = sum(outcome.pixels for outcome in outcomes if isinstance(outcome, Embedding))
    return {
        "object": "list",
        "data": asked.data(outcomes, describe),
        "model": model,
        "usage": {"text_tokens": tokens, "image_pixels": pixels, "video_pixels": 0, "total_tokens": tokens},
    }


def error_body(message: str, _request_id: str) -> dict[str, Any]:
    """Return an error in Voyage's shape."""
    return {"detail": message}


def _encoding(body: dict[str, Any]) -> str:
    """Read output_dtype and output_encoding; base64 is offered for floats."""
    numbers = {name: name for name in WRITERS if name != "base64"}
    dtype = fields.choice(body.get("output_dtype"), "output_dtype", numbers, "float")
    if body.get("output_encoding") is None:
        return dtype
    encoding = fields.choice(body["output_encoding"], "output_encoding", {"base64": "base64"}, "")
    if dtype != "float":
        raise InvalidParameter(f"is offered for output_dtype 'float' only, not for {dtype!r}", param="output_encoding")
    return encoding
