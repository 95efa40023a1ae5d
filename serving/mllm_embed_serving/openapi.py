"""The request bodies of all dialects for /openapi.json; the checks themselves are in `schemas` and `content`."""

from __future__ import annotations

from typing import Any

from mllm_embed.tasks import TASKS
from mllm_embed.types import MAX_WORDS
from mllm_embed_serving.content import PART_KEYS
from mllm_embed_serving.media_parts import DEFAULT_DPI, MOST_DPI
from mllm_embed_serving.schemas.cohere import INPUT_TYPES
from mllm_embed_serving.schemas.common import WRITERS
from mllm_embed_serving.schemas.openai import JINA_TASKS, ROLES, TRUNCATIONS, VECTOR_PER
from mllm_embed_serving.schemas.outputs import DEFAULT_WORDS, OUTPUTS

_NUMBER = {"type": "number"}
_COUNTS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_URL = {"oneOf": [{"type": "string"}, {"type": "object", "properties": {"url": {"type": "string"}}}]}
_REGION = {
    "type": "object",
    "description": "What of an image is meant: one of the three, in pixels of the upright image.",
    "additionalProperties": False,
    "properties": {
        "point": {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2, "description": "x, y"},
        "box": {"type": "array", "items": _NUMBER, "minItems": 4, "maxItems": 4, "description": "x, y, x, y"},
        "mask": {
            "description": "A black and white image of the same size, or runs as COCO's annotations hold them.",
            "oneOf": [{"type": "string"}, {"type": "object", "properties": {"size": _COUNTS, "counts": _COUNTS}}],
        },
    },
}
_PART = {
    "type": "object",
    "description": "An OpenAI content part: a text, an image (perhaps a region of it), a video, or a PDF.",
    "required": ["type"],
    "properties": {
        "type": {"enum": list(PART_KEYS)},
        "text": {"type": "string"},
        "image_base64": {"type": "string"},
        "image_url": _URL,
        "region": _REGION,
        "video_base64": {"type": "string"},
        "video_url": _URL,
        "frames": {"type": "integer", "minimum": 1, "description": "Most frames of the video that are used."},
        "fps": {"type": "number", "exclusiveMinimum": 0, "description": "Frames per second of the video, at most."},
        "document_base64": {"type": "string"},
        "document_url": _URL,
        "file": {"type": "object", "properties": {"file_data": {"type": "string", "description": "A PDF."}}},
        "pages": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1},
            "minItems": 1,
            "description": "Pages of the document that are read; all, if it is not given.",
        },
        "dpi": {"type": "integer", "minimum": 1, "maximum": MOST_DPI, "default": DEFAULT_DPI},
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
                "region": _REGION,
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

_ENCODINGS = {"type": "array", "items": {"enum": list(WRITERS)}, "minItems": 1}
_STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_INPUTS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["content"],
        "properties": {"content": {"type": "array", "items": _PART, "minItems": 1}},
    },
}
_OURS = {
    "instruction": {"type": "string", "description": "What the vectors are for, in words."},
    "task": {"enum": sorted(TASKS), "description": "A built-in task instead of an instruction."},
}
_PARTIAL = {
    "partial": {
        "type": "boolean",
        "default": False,
        "description": "Refuse items, not the request: errors then stand beside vectors.",
    }
}
_SIDE = {"oneOf": [*_ITEM["oneOf"], {"type": "array", "items": _ITEM}]}


def _json_body(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _body(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return _json_body(required, {"model": {"type": "string"}, **properties})


EMBEDDINGS = _body(
    ["model"],
    {
        "input": _SIDE,
        "messages": {"oneOf": [_CONVERSATION, {"type": "array", "items": _CONVERSATION}]},
        **_OURS,
        "task": {"enum": [*sorted(TASKS), *JINA_TASKS], "description": "A built-in task, or one of Jina's."},
        "input_type": {"enum": list(ROLES), "default": "query", "description": "Side of the task."},
        "dimensions": {"type": "integer", "minimum": 1},
        "output_dimension": {"type": "integer", "minimum": 1, "description": "Voyage's name of dimensions."},
        "encoding_format": {"enum": list(WRITERS), "default": "float"},
        "embedding_type": {
            "oneOf": [{"enum": list(WRITERS)}, _ENCODINGS],
            "description": "Jina's name of encoding_format; of several, every vector is an object that holds each.",
        },
        "truncate": {"enum": list(TRUNCATIONS), "default": "none", "description": "Cut texts that are too long."},
        "outputs": {
            "type": "array",
            "items": {"enum": list(OUTPUTS)},
            "minItems": 1,
            "default": ["dense"],
            "description": "What to return of the model's one forward pass.",
        },
        "lexical_top_k": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_WORDS,
            "default": DEFAULT_WORDS,
            "description": "Words of the lexical output.",
        },
        "vector_per": {"enum": list(VECTOR_PER), "default": "document", "description": "Of items that are a PDF."},
        "truncation": {"type": "boolean", "description": "Voyage's way to say truncate: end, or none."},
        "user": {"type": "string", "description": "Accepted and ignored."},
        **_PARTIAL,
    },
)
COHERE_EMBED = _body(
    ["model", "input_type"],
    {
        "texts": _STRINGS,
        "images": {**_STRINGS, "description": "Data URIs."},
        "inputs": _INPUTS,
        "input_type": {"enum": list(INPUT_TYPES)},
        "embedding_types": _ENCODINGS,
        "output_dimension": {"type": "integer", "minimum": 1},
        "truncate": {"enum": ["NONE", "START", "END"], "default": "END"},
    },
)
VOYAGE_EMBED = _body(
    ["model", "inputs"],
    {
        "inputs": _INPUTS,
        "input_type": {"enum": ["query", "document", None]},
        "truncation": {"type": "boolean", "default": True},
        "output_dimension": {"type": "integer", "minimum": 1},
        "output_dtype": {"enum": [name for name in WRITERS if name != "base64"], "default": "float"},
        "output_encoding": {"enum": ["base64", None]},
        **_PARTIAL,
    },
)
RERANK = _body(
    ["model", "query", "documents"],
    {
        "query": _ITEM,
        "documents": {"type": "array", "items": _ITEM, "minItems": 1},
        "top_n": {"type": "integer", "minimum": 1},
        "top_k": {"type": "integer", "minimum": 1, "description": "Voyage's name of top_n."},
        "return_documents": {"type": "boolean", "default": False},
        **_OURS,
    },
)
SCORE = _body(["model"], {"text_1": _SIDE, "text_2": _SIDE, "queries": _SIDE, "documents": _SIDE, **_OURS})
LOAD_ADAPTER = _json_body(
    ["lora_name", "lora_path"],
    {
        "lora_name": {"type": "string", "description": "The model name under which it is served."},
        "lora_path": {"type": "string", "description": "Its folder, inside the server's folder of adapters."},
    },
)
UNLOAD_ADAPTER = _json_body(["lora_name"], {"lora_name": {"type": "string"}})
FILE_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"enum": ["batch"]}},
                }
            }
        },
    }
}
BATCH_CREATE = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["input_file_id", "endpoint", "completion_window"],
                    "properties": {
                        "input_file_id": {"type": "string"},
                        "endpoint": {"enum": ["/v1/embeddings"]},
                        "completion_window": {"enum": ["24h"]},
                        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                }
            }
        },
    }
}


def _page(most: int) -> dict[str, Any]:
    limit = {"type": "integer", "minimum": 1, "maximum": most, "default": 20}
    return {
        "parameters": [
            {"name": "limit", "in": "query", "schema": limit},
            {"name": "after", "in": "query", "schema": {"type": "string"}, "description": "The last id that you have."},
        ]
    }


PAGE_OF_BATCHES = _page(100)
PAGE_OF_FILES = _page(10_000)
