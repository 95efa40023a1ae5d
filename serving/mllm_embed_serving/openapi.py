"""The request body of /v1/embeddings for /openapi.json; the checks themselves are in `schemas` and `content`."""

from __future__ import annotations

from typing import Any

from mllm_embed.tasks import TASKS
from mllm_embed_serving.schemas import ROLES

_PART = {
    "type": "object",
    "description": "An OpenAI content part: type text (text) or image_url (image_url.url).",
    "required": ["type"],
    "properties": {
        "type": {"enum": ["text", "image_url", "input_text", "input_image"]},
        "text": {"type": "string"},
        "image_url": {
            "oneOf": [{"type": "string"}, {"type": "object", "properties": {"url": {"type": "string"}}}],
        },
    },
}
_ITEM = {
    "oneOf": [
        {"type": "string", "description": "A text."},
        {"type": "array", "items": {"type": "integer"}, "description": "Token ids of the model's own tokenizer."},
        {
            "type": "object",
            "description": "A text, an image, or both, fused into one vector.",
            "additionalProperties": False,
            "properties": {
                "text": {"type": "string"},
                "image": {"type": "string", "description": "A data URI, bare base64, or (if allowed) a URL."},
                "instruction": {"type": "string"},
            },
        },
        {"type": "array", "items": _PART, "description": "Content parts in order, fused into one vector."},
    ],
}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "user", "assistant"]},
        "content": {"oneOf": [{"type": "string"}, {"type": "array", "items": _PART}]},
    },
}
_CONVERSATION = {"type": "array", "items": _MESSAGE}

EMBEDDINGS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model"],
                    "properties": {
                        "model": {"type": "string"},
                        "input": {"oneOf": [*_ITEM["oneOf"], {"type": "array", "items": _ITEM}]},
                        "messages": {"oneOf": [_CONVERSATION, {"type": "array", "items": _CONVERSATION}]},
                        "instruction": {"type": "string", "description": "What the vectors are for, in words."},
                        "task": {"enum": sorted(TASKS), "description": "A built-in task instead of an instruction."},
                        "input_type": {"enum": list(ROLES), "default": "query", "description": "Side of the task."},
                        "dimensions": {"type": "integer", "minimum": 1},
                        "encoding_format": {"enum": ["float", "base64"], "default": "float"},
                        "user": {"type": "string", "description": "Accepted and ignored."},
                    },
                }
            }
        },
    }
}
