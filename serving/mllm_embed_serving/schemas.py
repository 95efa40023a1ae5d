"""The OpenAI embeddings dialect: its request, checked field by field, and its response."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mllm_embed.errors import InputError
from mllm_embed.tasks import DEFAULT, TASKS, Role
from mllm_embed.types import Embedding, EmbedInput, Image
from mllm_embed.vectors import to_base64
from mllm_embed_serving import fields
from mllm_embed_serving.content import ItemReader
from mllm_embed_serving.errors import InvalidJson, InvalidParameter
from mllm_embed_serving.settings import ServerSettings

EncodingFormat = Literal["float", "base64"]

ROLES: dict[str, Role] = {"query": "query", "document": "target"}
"""Values of `input_type`, and the side of the task that each stands for."""
_FORMATS: dict[str, EncodingFormat] = {"float": "float", "base64": "base64"}
_TASKS = {name: name for name in TASKS}

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (),
    "add_special_tokens": (),
    "cache_salt": (),
    "chat_template": (),
    "chat_template_kwargs": (),
    "continue_final_message": (),
    "embed_dtype": ("float32",),
    "embedding_type": ("float",),
    "late_chunking": (False,),
    "media_io_kwargs": (),
    "mm_processor_kwargs": (),
    "modality": (),
    "normalize": (True,),
    "normalized": (True,),
    "output_dimension": (),
    "output_dtype": ("float",),
    "prompt": (),
    "prompt_name": (),
    "return_multivector": (False,),
    "truncate": (False, "NONE"),
    "truncate_prompt_tokens": (),
    "truncation": (False,),
    "truncation_side": (),
    "use_activation": (True,),
}
"""Fields of other servers that would change the vector, and the values under which they change nothing here.

They are refused, since ignoring them would return a vector that the caller did not ask for. Other unknown fields are
ignored.
"""


@dataclass(frozen=True)
class Items:
    """The items of a request, not yet read.

    Attributes:
        values: one JSON value per vector.
        paths: the path of each in the request, for messages: `input`, `input[3]`, `messages`, ...
        field: the field they came from.
    """

    values: tuple[Any, ...]
    paths: tuple[str, ...]
    field: Literal["input", "messages"]


@dataclass(frozen=True, kw_only=True)
class EmbeddingRequest:
    """A checked request.

    Attributes:
        inputs: one per vector, in order.
        encoding_format: how vectors are written.
        dimensions: width asked for; None keeps the full one.
        task: a built-in task.
        role: the side of the task.
        instruction: free instruction for the inputs without one of their own.
    """

    inputs: tuple[EmbedInput, ...]
    encoding_format: EncodingFormat
    dimensions: int | None
    task: str
    role: Role
    instruction: str | None

    @property
    def images(self) -> int:
        """How many pictures the inputs hold together."""
        return sum(isinstance(content, Image) for item in self.inputs for content in item.content)


def read_json(body: bytes) -> dict[str, Any]:
    """Parse a request body.

    Raises:
        InvalidJson: not JSON (NaN and Infinity are not), nested too deeply, or not an object.
    """
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidJson("the request body is nested too deeply") from None
    except ValueError as error:  # bad JSON, bad UTF-8, or an integer of thousands of digits
        raise InvalidJson(f"the request body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidJson(f"the request body must be a JSON object, but is {fields.kind(value)}")
    return value


def select_items(body: dict[str, Any], max_items: int) -> Items:
    """Find the items of a request: `input`, or `messages` as vLLM takes them.

    Raises:
        InvalidParameter: neither, both, of a wrong type, empty, or more than `max_items`.
    """
    given = [name for name in ("input", "messages") if body.get(name) is not None]
    if len(given) != 1:
        problem = "is missing" if not given else "cannot be given together with messages"
        raise InvalidParameter(problem, param="input")
    items = _input_items(body["input"]) if given == ["input"] else _message_items(body["messages"])
    if len(items.values) > max_items:
        raise InvalidParameter(
            f"may hold at most {max_items} items per request, but holds {len(items.values)}", param=items.field
        )
    return items


def parse_request(body: dict[str, Any], items: Items, reader: ItemReader, settings: ServerSettings) -> EmbeddingRequest:
    """Check the other fields of a request, and read its items.

    Raises:
        InvalidParameter: a field is of a wrong type, out of range, or not supported.
        InputError: an item is refused, with its index.
    """
    _refuse_unsupported(body)
    instruction = fields.optional_text(body.get("instruction"), "instruction", settings.max_text_chars)
    if instruction is not None and body.get("task") is not None:
        raise InvalidParameter("give either a task or an instruction, not both", param="instruction")
    request = EmbeddingRequest(
        encoding_format=fields.choice(body.get("encoding_format"), "encoding_format", _FORMATS, "float"),
        dimensions=fields.positive_integer(body.get("dimensions"), "dimensions"),
        task=fields.choice(body.get("task"), "task", _TASKS, DEFAULT),
        role=fields.choice(body.get("input_type"), "input_type", ROLES, "query"),
        instruction=instruction,
        inputs=tuple(_read_items(items, reader)),
    )
    if request.images > settings.max_images:
        raise InvalidParameter(
            f"may hold at most {settings.max_images} images per request, but holds {request.images}", param=items.field
        )
    return request


def response_body(embeddings: Sequence[Embedding], model: str, encoding_format: EncodingFormat) -> dict[str, Any]:
    """Return OpenAI's answer: vectors in index order, and the tokens that the model read for them."""
    tokens = sum(embedding.tokens for embedding in embeddings)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": to_base64(item.vector) if encoding_format == "base64" else item.vector.tolist(),
        }
        for index, item in enumerate(embeddings)
    ]
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _input_items(value: Any) -> Items:
    if isinstance(value, list):
        if not value:
            raise InvalidParameter("must not be an empty array", param="input")
        if type(value[0]) is not int:  # an array of integers is one item, of token ids
            return Items(tuple(value), tuple(f"input[{index}]" for index in range(len(value))), "input")
    elif not isinstance(value, (str, dict)):
        raise fields.wrong_type("a string, an object, or an array", value, "input")
    return Items((value,), ("input",), "input")


def _message_items(value: Any) -> Items:
    if not isinstance(value, list):
        raise fields.wrong_type("an array of messages, or an array of such arrays", value, "messages")
    if not value:
        raise InvalidParameter("must not be an empty array", param="messages")
    if isinstance(value[0], list):
        return Items(tuple(value), tuple(f"messages[{index}]" for index in range(len(value))), "messages")
    return Items((value,), ("messages",), "messages")


def _read_items(items: Items, reader: ItemReader) -> Iterator[EmbedInput]:
    read = reader.item if items.field == "input" else reader.conversation
    for index, (value, path) in enumerate(zip(items.values, items.paths, strict=True)):
        try:
            yield read(value, path)
        except InputError as error:
            raise error.at(index) from None


def _refuse_unsupported(body: dict[str, Any]) -> None:
    for name in UNSUPPORTED.keys() & body.keys():
        value = body[name]
        if value is not None and value not in UNSUPPORTED[name]:
            raise InvalidParameter(
                "is not supported and would change the vector, so it is refused rather than ignored "
                "(the model's recipe fixes prompt, pooling and normalisation; cut with dimensions)",
                param=name,
            )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
