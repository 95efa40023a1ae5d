"""JSON answers that cannot fail to encode."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi.responses import JSONResponse
from starlette.requests import Request

from mllm_embed_serving.errors import NameItem, answer_headers, error_body, find_answer
from mllm_embed_serving.schemas import cohere, voyage
from mllm_embed_serving.schemas.common import DescribeError, ItemError


class AsciiJSONResponse(JSONResponse):
    """JSON in pure ASCII: a lone surrogate that a caller sent can be echoed in a message, where UTF-8 would raise."""

    def render(self, content: Any) -> bytes:
        """Encode `content`; a vector that holds NaN would be refused here, since NaN is not JSON."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


ErrorShape = Callable[[str, str], dict[str, Any]]
"""Message and request id -> the error object of a dialect."""

ERROR_SHAPES: dict[str, ErrorShape] = {
    "/v2/": cohere.error_body,
    "/v1/multimodalembeddings": voyage.error_body,
}
"""Dialects whose errors have another shape than OpenAI's, by the beginning of their paths."""


def error_response(
    error: BaseException, request_id: str, path: str, name_item: NameItem | None = None
) -> AsciiJSONResponse:
    """Return the HTTP answer of an error, in the shape of the dialect that `path` belongs to."""
    answer = find_answer(error)
    body = error_body(error, request_id, name_item)
    for prefix, shape in ERROR_SHAPES.items():
        if path.startswith(prefix):
            body = shape(body["error"]["message"], request_id)
    return AsciiJSONResponse(body, status_code=answer.status, headers=answer_headers(error))


def item_describer(request: Request) -> DescribeError:
    """Return what writes the error of one item of a request, the same object that would refuse the whole request."""

    def describe(error: ItemError) -> dict[str, Any]:
        described: dict[str, Any] = error_body(error, request.state.request_id, request.state.name_item)["error"]
        return described

    return describe
