"""The OpenAI embeddings dialect, with what vLLM and Jina added to it: request, checked field by field, and response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mllm_embed.tasks import DEFAULT, TASKS, Role
from mllm_embed.types import DENSE, Document, Embedding, EmbedInput, Truncate
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
    read_encodings,
    read_instruction,
    read_items,
    used_tokens,
)
from mllm_embed_serving.schemas.outputs import read_outputs
from mllm_embed_serving.settings import ServerSettings

ROLES: dict[str, Role] = {"query": "query", "document": "target"}
"""Values of `input_type`, and the side of the task that each stands for."""
JINA_TASKS: dict[str, tuple[str, Role]] = {
    "retrieval.query": (DEFAULT, "query"),
    "retrieval.passage": (DEFAULT, "target"),
    "code.query": (DEFAULT, "query"),
    "code.passage": (DEFAULT, "target"),
    "separation": (DEFAULT, "target"),
    "text-matching": ("text-to-text", "query"),
    "classification": ("classification", "query"),
}
"""Jina's names of tasks, and our task and side for each."""
WINDOWS = "windows"
"""Value of `truncate` that cuts nothing off: a text that is too long is embedded as the mean of its windows."""
TRUNCATIONS: dict[str, Truncate] = {"none": "none", "start": "start", "end": "end", WINDOWS: "none"}
VECTOR_PER = ("document", "page")
"""Values of `vector_per`: what of a document one vector stands for."""

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (),
    "add_special_tokens": (),
    "cache_salt": (),
    "chat_template": (),
    "chat_template_kwargs": (),
    "continue_final_message": (),
    "embed_dtype": ("float32",),
    "late_chunking": (False,),
    "media_io_kwargs": (),
    "mm_processor_kwargs": (),
    "modality": ("text",),
    "normalize": (True,),
    "normalized": (True,),
    "output_dtype": ("float",),
    "prompt": (),
    "prompt_name": (),
    "return_multivector": (False,),
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    "use_activation": (True,),
}
"""Fields of other servers that would change the vector, and the values under which they change nothing here.

They are refused, since ignoring them would return a vector that the caller did not ask for. Other unknown fields are
ignored.
"""


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
    check_count(items, max_items)
    return items


def parse_request(body: dict[str, Any], items: Items, reader: ItemReader, settings: ServerSettings) -> EncodedRequest:
    """Check the other fields of a request, and read its items.

    Raises:
        InvalidParameter: a field is of a wrong type, out of range, or not supported.
        InputError: an item is refused, with its index.
    """
    _refuse_unsupported(body)
    instruction = read_instruction(body, settings)
    task, role = _task_and_role(body)
    partial = fields.boolean(body.get("partial"), "partial", default=False)
    truncation = _truncation(*_either(body, "truncate", "truncation"))
    outputs, dense = read_outputs(body)
    if truncation == WINDOWS and outputs != DENSE:
        raise InvalidParameter(
            "the windows of a text give one dense vector together, and nothing else", param="outputs"
        )
    by_page = fields.choice(body.get("vector_per"), "vector_per", {n: n for n in VECTOR_PER}, "document") == "page"
    if by_page and outputs != DENSE:
        raise InvalidParameter("the pages of a document have one dense vector each, and nothing else", param="outputs")
    read = reader.item if items.field == "input" else reader.conversation
    inputs = read_each(items, read, settings) if partial else read_items(items, read, settings)
    if by_page:
        _check_apart(inputs, items)
    wanted = EmbeddingRequest(
        dimensions=fields.positive_integer(*_either(body, "dimensions", "output_dimension")),
        task=task,
        role=role,
        instruction=instruction,
        truncate=TRUNCATIONS[truncation],
        windows=truncation == WINDOWS,
        by_page=by_page,
        outputs=outputs,
        inputs=inputs,
    )
    return EncodedRequest(wanted=wanted, encoding=_encoding(body), partial=partial, dense=dense)


def response_body(
    asked: EncodedRequest, outcomes: Sequence[Embedding | ItemError], model: str, describe: DescribeError
) -> dict[str, Any]:
    """Return OpenAI's answer: vectors in index order, and the tokens that the model read for them."""
    tokens = used_tokens(outcomes)
    return {
        "object": "list",
        "data": asked.data(outcomes, describe),
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _check_apart(inputs: Sequence[EmbedInput | ItemError], items: Items) -> None:
    """Refuse documents beside other content: their pages cannot have vectors of their own."""
    for item, path in zip(inputs, items.paths, strict=True):
        content = item.content if isinstance(item, EmbedInput) else ()
        if len(content) > 1 and any(isinstance(part, Document) for part in content):
            raise InvalidParameter(
                f"must hold one document and nothing else, where vector_per is 'page', but holds {len(content)} parts",
                param=path,
            )


def _input_items(value: Any) -> Items:
    if isinstance(value, list):
        if value and type(value[0]) is int:  # an array of integers is one item, of token ids
            return Items((value,), ("input",), "input")
        return array_items(value, "input")
    if not isinstance(value, (str, dict)):
        raise fields.wrong_type("a string, an object, or an array", value, "input")
    return Items((value,), ("input",), "input")


def _message_items(value: Any) -> Items:
    if not isinstance(value, list):
        raise fields.wrong_type("an array of messages, or an array of such arrays", value, "messages")
    items = array_items(value, "messages")
    return items if isinstance(value[0], list) else Items((value,), ("messages",), "messages")


def _task_and_role(body: dict[str, Any]) -> tuple[str, Role]:
    """Read `task`, ours or Jina's, and `input_type`; Jina's tasks say the side themselves."""
    known = {**{name: name for name in TASKS}, **{name: name for name in JINA_TASKS}}
    name = fields.choice(body.get("task"), "task", known, DEFAULT)
    role = fields.choice(body.get("input_type"), "input_type", ROLES, "query")
    if name not in JINA_TASKS:
        return name, role
    task, own = JINA_TASKS[name]
    if body.get("input_type") is not None and role != own:
        raise InvalidParameter(f"contradicts the task {name!r}", param="input_type")
    return task, own


def _either(body: dict[str, Any], name: str, others: str) -> tuple[Any, str]:
    """Return what a field holds, and its name: ours, or what Voyage and Infinity call it."""
    if body.get(name) is not None and body.get(others) is not None:
        raise InvalidParameter(f"give either {name} or {others}, not both", param=others)
    found = name if body.get(others) is None else others
    return body.get(found), found


def _truncation(value: Any, path: str) -> str:
    """Read `truncate`: a key of `TRUNCATIONS` in any case; true and false as Jina and Voyage write them."""
    if isinstance(value, bool):
        return "end" if value else "none"
    names = {name: name for name in TRUNCATIONS}
    return fields.choice(value.lower() if isinstance(value, str) else value, path, names, "none")


def _encoding(body: dict[str, Any]) -> str | tuple[str, ...]:
    """Read `encoding_format`, or `embedding_type` as Jina calls it: one, or an array of several."""
    if body.get("encoding_format") is not None and body.get("embedding_type") is not None:
        raise InvalidParameter("give either encoding_format or embedding_type, not both", param="embedding_type")
    name = "encoding_format" if body.get("embedding_type") is None else "embedding_type"
    value = body.get(name)
    if name == "embedding_type" and isinstance(value, list):
        several = read_encodings(value, name)
        return several if len(several) > 1 else several[0]
    return fields.choice(value, name, {key: key for key in WRITERS}, "float")


def _refuse_unsupported(body: dict[str, Any]) -> None:
    for name in UNSUPPORTED.keys() & body.keys():
        value = body[name]
        if value is not None and value not in UNSUPPORTED[name]:
            raise InvalidParameter(
                "is not supported and would change the vector, so it is refused rather than ignored "
                "(the model's recipe fixes prompt, pooling and normalisation; cut with dimensions)",
                param=name,
            )
