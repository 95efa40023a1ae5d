"""The lines of a batch's input file: read one by one, checked as OpenAI does before any is run."""

from __future__ import annotations

import json
from collections.abc import Container, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_embed_serving.errors import InvalidJson
from mllm_embed_serving.schemas.common import read_json

ENDPOINT = "/v1/embeddings"
"""The route that lines may call."""
MAX_LINES = 50_000
MAX_INPUTS = 50_000
"""Most lines of a file, and most inputs in all of them, as at OpenAI."""
_MAX_ERRORS = 100


@dataclass(frozen=True)
class Line:
    """One request of a batch.

    Attributes:
        number: where it stands in the file, from 1.
        custom_id: what the caller calls it.
        body: what it asks for.
    """

    number: int
    custom_id: str
    body: dict[str, Any]


def read_lines(path: Path, done: Container[int]) -> Generator[Line, None, None]:
    """Yield the lines of a file that `check` has found right, but for those that are done, without holding them all."""
    with path.open("rb") as stream:
        for number, text in enumerate(stream, start=1):
            if number not in done and text.strip():
                value = json.loads(text)
                yield Line(number, value["custom_id"], value["body"])


def check(path: Path, max_line_bytes: int) -> tuple[int, list[dict[str, Any]]]:
    """Check a whole file.

    Args:
        path: the file.
        max_line_bytes: longest line.

    Returns:
        how many requests it holds, and what is wrong with it, in OpenAI's shape.
    """
    seen: set[str] = set()
    errors: list[dict[str, Any]] = []
    inputs = 0

    def wrong(number: int | None, code: str, message: str, param: str | None = None) -> None:
        errors.append({"code": code, "line": number, "message": message, "param": param})

    with path.open("rb") as stream:
        number = 0
        while (text := stream.readline(max_line_bytes + 1)) and len(errors) < _MAX_ERRORS:
            number += 1
            if len(text) > max_line_bytes:
                wrong(number, "line_too_long", f"a line may have at most {max_line_bytes} bytes")
                break
            if not text.strip():
                continue
            problem = _problem(text, seen)
            if problem is not None:
                wrong(number, *problem)
            else:
                inputs += _inputs(json.loads(text)["body"])
    if not seen and not errors:
        wrong(None, "empty_file", "the input file holds no requests")
    for what, count, most in (("requests", len(seen), MAX_LINES), ("inputs", inputs, MAX_INPUTS)):
        if count > most:
            wrong(None, f"too_many_{what}", f"a batch may hold at most {most} {what}, but holds {count}")
    return len(seen), errors


def _problem(text: bytes, seen: set[str]) -> tuple[str, str, str | None] | None:
    """Return what is wrong with a line: code, message, field."""
    try:
        line = read_json(text)
    except InvalidJson as error:
        return "invalid_json_line", str(error).replace("the request body", "the line"), None
    name = line.get("custom_id")
    named = isinstance(name, str) and name != ""
    rules = (
        (named, "missing_custom_id", "custom_id must be a string and not empty", "custom_id"),
        (not named or name not in seen, "duplicate_custom_id", "custom_id must be unique within the file", "custom_id"),
        (line.get("method") == "POST", "invalid_method", "method must be 'POST'", "method"),
        (line.get("url") == ENDPOINT, "mismatched_endpoint", f"url must be the batch's, {ENDPOINT!r}", "url"),
        (isinstance(line.get("body"), dict), "invalid_request", "body must be an object", "body"),
    )
    if isinstance(name, str):
        seen.add(name)
    return next(((code, message, param) for kept, code, message, param in rules if not kept), None)


def _inputs(body: dict[str, Any]) -> int:
    """Count the vectors that a body asks for; what is malformed counts once, and fails when its line is run."""
    for name, items in (("input", (str, list, dict)), ("messages", (list,))):
        value = body.get(name)
        if isinstance(value, list) and value and isinstance(value[0], items):
            return len(value)
    return 1
