"""JSON answers that cannot fail to encode."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import JSONResponse

from mllm_embed_serving.errors import NameItem, error_body, find_answer


class AsciiJSONResponse(JSONResponse):
    """JSON in pure ASCII: a lone surrogate that a caller sent can be echoed in a message, where UTF-8 would raise."""

    def render(self, content: Any) -> bytes:
        """Encode `content`; a vector that holds NaN would be refused here, since NaN is not JSON."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def error_response(error: BaseException, request_id: str, name_item: NameItem | None = None) -> AsciiJSONResponse:
    """Return the HTTP answer of an error."""
    answer = find_answer(error)
    return AsciiJSONResponse(
        error_body(error, request_id, name_item), status_code=answer.status, headers=dict(answer.headers)
    )
