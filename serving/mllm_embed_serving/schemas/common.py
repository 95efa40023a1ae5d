"""What all dialects share: a checked request for vectors, and how vectors are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.errors import InputError
from mllm_embed.tasks import DEFAULT, TASKS, Role
from mllm_embed.types import DENSE, Embedding, EmbedInput, Outputs, Text, Truncate
from mllm_embed.vectors import quantise, to_base64
from mllm_embed_serving import fields
from mllm_embed_serving.errors import InvalidJson, InvalidParameter
from mllm_embed_serving.schemas.outputs import written_outputs
from mllm_embed_serving.settings import ServerSettings

WRITERS: dict[str, Callable[[NDArray[np.float32]], Any]] = {
    "float": lambda vector: vector.tolist(),
    "base64": to_base64,
    "int8": lambda vector: quantise(vector, "int8").tolist(),
    "uint8": lambda vector: quantise(vector, "uint8").tolist(),
    "binary": lambda vector: quantise(vector, "binary").tolist(),
    "ubinary": lambda vector: quantise(vector, "ubinary").tolist(),
}
"""How a unit vector is written, by the name that clients ask for it with."""


ItemError = InputError | InvalidParameter
"""Why one item of a request is refused."""
DescribeError = Callable[[ItemError], dict[str, Any]]
"""Writes an error as JSON."""


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
    field: str

    @classmethod
    def of(cls, values: Sequence[Any], field: str) -> Items:
        """Name the members of an array."""
        return cls(tuple(values), tuple(f"{field}[{index}]" for index in range(len(values))), field)


@dataclass(frozen=True, kw_only=True)
class EmbeddingRequest:
    """A checked request for vectors, whatever dialect it came in.

    Attributes:
        inputs: one per vector, in order; where the request wants errors per item, the error of an item that is
            malformed stands in its place.
        task: a built-in task.
        role: the side of the task.
        instruction: free instruction for the inputs without one of their own.
        dimensions: width asked for; None keeps the full one.
        truncate: what to do with inputs that are too long.
        windows: whether a text that is too long is embedded as the mean of its windows instead.
        by_page: whether the pages of an item that is a document are embedded one by one.
        outputs: what is wanted besides the dense vector.
    """

    inputs: tuple[EmbedInput | ItemError, ...]
    task: str = DEFAULT
    role: Role = "query"
    instruction: str | None = None
    dimensions: int | None = None
    truncate: Truncate = "none"
    windows: bool = False
    by_page: bool = False
    outputs: Outputs = DENSE

    @property
    def images(self) -> int:
        """How many pictures the inputs hold together, at most: frames of videos and close-ups of regions too."""
        return _images(self.inputs)


@dataclass(frozen=True, kw_only=True)
class EncodedRequest:
    """A checked request for vectors that are all written in one way.

    Attributes:
        wanted: what to embed, and how.
        encoding: how vectors are written, a key of `WRITERS`; where several are asked for, an object that holds each.
        partial: whether an item that is refused spares the others: its error then stands beside their vectors.
        dense: whether the dense vector is written.
    """

    wanted: EmbeddingRequest
    encoding: str | tuple[str, ...]
    partial: bool = False
    dense: bool = True

    def data(self, outcomes: Sequence[Embedding | ItemError], describe: DescribeError) -> list[dict[str, Any]]:
        """Return one object per item, in order: its outputs, or its error beside an empty vector.

        Args:
            outcomes: what became of the items.
            describe: writes an error.
        """
        return [
            {
                "object": "embedding",
                "index": index,
                "embedding": self._write(outcome.vector) if self.dense else None,
                **written_outputs(outcome, self._write),
                **times_of(outcome),
            }
            if isinstance(outcome, Embedding)
            else {"object": "error", "index": index, "embedding": None, "error": describe(outcome)}
            for index, outcome in enumerate(outcomes)
        ]

    def _write(self, vector: NDArray[np.float32]) -> Any:
        if isinstance(self.encoding, str):
            return WRITERS[self.encoding](vector)
        return {name: WRITERS[name](vector) for name in self.encoding}


def times_of(embedding: Embedding) -> dict[str, Any]:
    """Return `frame_times`, per video the seconds of the frames that were used, for an input with videos."""
    return {"frame_times": embedding.frame_times} if embedding.frame_times else {}


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


def array_items(value: Any, field: str) -> Items:
    """Read an array of at least one item.

    Raises:
        InvalidParameter: another type, or an empty array.
    """
    if not isinstance(value, list):
        raise fields.wrong_type("an array", value, field)
    if not value:
        raise InvalidParameter("must not be an empty array", param=field)
    return Items.of(value, field)


def read_encodings(value: Any, field: str) -> tuple[str, ...]:
    """Read an array of ways to write a vector, each once and in order.

    Raises:
        InvalidParameter: no array of names, an empty one, or an unknown name.
    """
    items = array_items(value, field)
    known = {name: name for name in WRITERS}
    chosen = [fields.choice(name, path, known, "") for name, path in zip(items.values, items.paths, strict=True)]
    return tuple(dict.fromkeys(chosen))


def only_one(body: dict[str, Any], names: Sequence[str], field: str) -> str:
    """Return which of several fields is given, where exactly one must be.

    Args:
        body: the request.
        names: the fields.
        field: the one that the error names.

    Raises:
        InvalidParameter: none of them, or more than one.
    """
    given = [name for name in names if body.get(name) is not None]
    if len(given) != 1:
        problem = "none is given" if not given else f"{' and '.join(given)} are given"
        raise InvalidParameter(f"exactly one of {', '.join(names)} is needed, but {problem}", param=field)
    return given[0]


def used_tokens(outcomes: Sequence[Embedding | ItemError]) -> int:
    """Return the tokens that the model read for those items that have a vector."""
    return sum(outcome.tokens for outcome in outcomes if isinstance(outcome, Embedding))


def check_count(items: Items, max_items: int) -> None:
    """Refuse more items than a request may hold."""
    if len(items.values) > max_items:
        raise InvalidParameter(
            f"may hold at most {max_items} items per request, but holds {len(items.values)}", param=items.field
        )


def read_items(
    items: Items, read: Callable[[Any, str], EmbedInput], settings: ServerSettings
) -> tuple[EmbedInput, ...]:
    """Read every item.

    Raises:
        InputError: the first item that is refused, with its index.
        InvalidParameter: an item is malformed, or there are more images than a request may hold.
    """
    inputs = []
    for item in read_each(items, read, settings):
        if not isinstance(item, EmbedInput):
            raise item
        inputs.append(item)
    return tuple(inputs)


def read_each(
    items: Items, read: Callable[[Any, str], EmbedInput], settings: ServerSettings
) -> tuple[EmbedInput | ItemError, ...]:
    """Read every item; where one is refused, its error stands in its place.

    Raises:
        InvalidParameter: there are more images than a request may hold.
    """
    inputs: list[EmbedInput | ItemError] = []
    for index, (value, path) in enumerate(zip(items.values, items.paths, strict=True)):
        try:
            inputs.append(read(value, path))
        except InputError as error:
            inputs.append(error.at(index))
        except InvalidParameter as error:
            inputs.append(error)
    images = _images(inputs)
    if images > settings.max_images:
        raise InvalidParameter(
            f"may hold at most {settings.max_images} images per request, but holds {images}", param=items.field
        )
    return tuple(inputs)


def read_task(body: dict[str, Any], settings: ServerSettings) -> tuple[str, str | None]:
    """Read our own two fields: a built-in `task`, or a free `instruction` instead.

    Raises:
        InvalidParameter: both, an unknown task, or a wrong type.
    """
    instruction = read_instruction(body, settings)
    return fields.choice(body.get("task"), "task", {name: name for name in TASKS}, DEFAULT), instruction


def read_instruction(body: dict[str, Any], settings: ServerSettings) -> str | None:
    """Read a free `instruction`, which stands instead of a `task`.

    Raises:
        InvalidParameter: both are given, or it is of a wrong type.
    """
    instruction = fields.optional_text(body.get("instruction"), "instruction", settings.max_text_chars)
    if instruction is not None and body.get("task") is not None:
        raise InvalidParameter("give either a task or an instruction, not both", param="instruction")
    return instruction


def _images(inputs: Sequence[EmbedInput | ItemError]) -> int:
    items = [item for item in inputs if isinstance(item, EmbedInput)]
    return sum(part.pictures for item in items for part in item.content if not isinstance(part, Text))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
