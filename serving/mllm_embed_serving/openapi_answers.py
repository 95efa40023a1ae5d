"""The answers of all routes for /openapi.json: what each status holds."""

from __future__ import annotations

from typing import Any

_STRING = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_NULLABLE = {"type": ["string", "null"]}


def _object(properties: dict[str, Any], *, optional: tuple[str, ...] = (), more: bool = False) -> dict[str, Any]:
    """Describe an object; more is whether it may hold what is not listed."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": more}


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _array(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


OPENAI_ERROR = _object({"error": _object({"message": _STRING, "type": _STRING, "param": _NULLABLE, "code": _STRING})})
COHERE_ERROR = _object({"id": _STRING, "message": _STRING})
VOYAGE_ERROR = _object({"detail": _STRING})
_STATUSES = {
    400: "The request is at fault.",
    401: "No key, or a wrong one.",
    403: "A key that may not do this.",
    404: "No such model, file or batch.",
    405: "Not that method.",
    408: "The body did not arrive in time.",
    413: "The body is too long.",
    429: "Too much at once, or for this key; see retry-after.",
    500: "The server is at fault.",
    503: "The engine is not available.",
    504: "It took too long.",
}


def errors(schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Describe the failing answers of a dialect."""
    return {status: _json(schema, description) for status, description in _STATUSES.items()}


_USAGE = _object({"prompt_tokens": _COUNT, "total_tokens": _COUNT})
_BASE64 = {"type": "string", "description": "base64"}
_BY_ENCODING = {"type": "object", "additionalProperties": {"oneOf": [_NUMBERS, _BASE64]}}
_VECTOR = {"oneOf": [_NUMBERS, _BASE64, _BY_ENCODING, {"type": "null"}]}
_TIMES = {**_array(_NUMBERS), "description": "Of each video, the seconds of the frames that were used."}
_DATUM = _object(
    {
        "object": {"enum": ["embedding", "error"]},
        "index": _COUNT,
        "embedding": _VECTOR,
        "multivector": {**_array(_VECTOR), "description": "A vector per token of the input's own."},
        "lexical": {
            "type": "object",
            "additionalProperties": {"type": "number"},
            "description": "Words and their weights, the heaviest first.",
        },
        "frame_times": _TIMES,
        "pages": {**_array(_VECTOR), "description": "A vector per page of a document, where the request asks for it."},
        "error": OPENAI_ERROR["properties"]["error"],
    },
    optional=("multivector", "lexical", "frame_times", "pages", "error"),
)
_LIST = {"enum": ["list"]}
EMBEDDINGS = _json(
    _object({"object": _LIST, "data": _array(_DATUM), "model": _STRING, "usage": _USAGE}), "Vectors, in order."
)
_VOYAGE_USAGE = dict.fromkeys(("text_tokens", "image_pixels", "video_pixels", "total_tokens"), _COUNT)
VOYAGE = _json(
    _object({"object": _LIST, "data": _array(_DATUM), "model": _STRING, "usage": _object(_VOYAGE_USAGE)}),
    "Vectors, in order.",
)
_API_VERSION = _object({"version": _STRING})
COHERE = _json(
    _object(
        {
            "id": _STRING,
            "response_type": {"enum": ["embeddings_by_type"]},
            "embeddings": {"type": "object", "additionalProperties": _array(_VECTOR)},
            "meta": _object(
                {"api_version": _API_VERSION, "billed_units": _object({"input_tokens": _COUNT, "images": _COUNT})}
            ),
            "frame_times": {"type": "array", "items": _TIMES},
            "texts": _array(_STRING),
        },
        optional=("frame_times", "texts"),
    ),
    "Vectors by type, in order.",
)
_RANKED = _array(
    _object({"index": _COUNT, "relevance_score": {"type": "number"}, "document": {}}, optional=("document",))
)
RERANK = _json(
    _object({"object": _LIST, "model": _STRING, "results": _RANKED, "data": _RANKED, "usage": _USAGE}), "Best first."
)
_BILLED = _object({"api_version": _API_VERSION, "billed_units": _object({"search_units": _COUNT})})
COHERE_RERANK = _json(_object({"id": _STRING, "results": _RANKED, "meta": _BILLED}), "Best first.")
_SCORE = _object({"index": _COUNT, "object": {"enum": ["score"]}, "score": {"type": "number"}})
SCORE = _json(
    _object(
        {
            "id": _STRING,
            "object": _LIST,
            "created": _COUNT,
            "model": _STRING,
            "data": _array(_SCORE),
            "usage": _USAGE,
        }
    ),
    "Cosines, in order.",
)
MODEL_CARD = _object({"id": _STRING, "object": {"enum": ["model"]}, "created": _COUNT, "owned_by": _STRING}, more=True)
MODEL = _json(MODEL_CARD, "Everything that decides a vector.")
MODELS = _json(_object({"object": _LIST, "data": _array(MODEL_CARD)}), "The served model, and adapters on it.")
UNLOADED = _json(
    _object({"id": _STRING, "object": {"enum": ["model"]}, "deleted": {"enum": [True]}}), "It is not served any more."
)
_PAGE = {"first_id": _NULLABLE, "last_id": _NULLABLE, "has_more": {"type": "boolean"}}
_FILE = _object({"id": _STRING, "object": {"enum": ["file"]}, "bytes": _COUNT, "purpose": _STRING}, more=True)
FILE = _json(_FILE, "A file.")
FILES = _json(_object({"object": _LIST, "data": _array(_FILE), **_PAGE}), "Files, newest first.")
DELETED = _json(_object({"id": _STRING, "object": {"enum": ["file"]}, "deleted": {"enum": [True]}}), "It is gone.")
CONTENT = {"description": "The file.", "content": {"application/octet-stream": {"schema": {"type": "string"}}}}
_BATCH = _object({"id": _STRING, "object": {"enum": ["batch"]}, "status": _STRING, "endpoint": _STRING}, more=True)
BATCH = _json(_BATCH, "A batch.")
BATCHES = _json(_object({"object": _LIST, "data": _array(_BATCH), **_PAGE}), "Batches, newest first.")
HEALTH = _json(_object({"status": {"enum": ["ok"]}}), "The engine can take work.")
METRICS = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
