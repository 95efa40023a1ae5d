"""Lists in pages, as OpenAI's clients walk through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from mllm_embed_serving.errors import InvalidParameter


def page(objects: Sequence[dict[str, Any]], request: Request, *, most: int) -> dict[str, Any]:
    """Return the part of a list that a request asks for with `limit` and `after`, the id of the last object it has.

    Args:
        objects: the whole list, in order; each has an `id`.
        request: its query says which part.
        most: longest page, and the default up to 20.

    Raises:
        InvalidParameter: a limit out of range, or an object that is not in the list.
    """
    limit = _limit(request.query_params.get("limit"), most)
    ids = [entry["id"] for entry in objects]
    start = 0
    if (after := request.query_params.get("after")) is not None:
        if after not in ids:
            raise InvalidParameter("is the id of nothing in this list", param="after")
        start = ids.index(after) + 1
    data = list(objects[start : start + limit])
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": start + limit < len(objects),
    }


def _limit(value: str | None, most: int) -> int:
    if value is None:
        return min(20, most)
    if not (value.isascii() and value.isdecimal() and len(value) < 9 and 1 <= int(value) <= most):
        raise InvalidParameter(f"must be an integer from 1 to {most}", param="limit")
    return int(value)
