"""What is measured: a task is one or more ranking problems, a ranking problem is queries over candidates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from mllm_embed.errors import InvalidInput, MllmEmbedError
from mllm_embed.types import EmbedInput, Image, Text

ROBUSTNESS = "robustness"
"""The meta-task that no mean over tasks includes: its tasks ask the queries of others again."""
CLEAN = "clean"
"""Slice of the queries of a robustness task as they were, in the order of those that are perturbed."""


class EvaluationError(MllmEmbedError):
    """The evaluation cannot run as asked: data is missing or does not fit, or the reports do not."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query.

    Attributes:
        item: what is embedded, with its instruction.
        truths: positions of the right candidates; finding one of them is a hit.
        slices: names of the groups of queries that it counts for, such as `test` and `test_new`.
        extras: positions of candidates that only this query sees, beyond the shared ones.
        instance: queries of one instance ask for the same thing in another way: in another language, or under another
            instruction. Empty where that means nothing.
        gains: relevance of each of `truths`, above 0; empty means that all are equally right.
        hidden: positions of shared candidates that this query does not see, such as the picture that it asks with.
        likeness: how alike people find the query and its only candidate; None where candidates are ranked.
    """

    item: EmbedInput
    truths: tuple[int, ...]
    slices: tuple[str, ...]
    extras: tuple[int, ...] = ()
    instance: str = ""
    gains: tuple[float, ...] = ()
    hidden: tuple[int, ...] = ()
    likeness: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One ranking problem: queries over one set of candidates.

    Attributes:
        name: a style, a direction, or `all`.
        queries: what is asked.
        candidates: what is ranked, no two of them equal in text.
        shared: the first so many candidates are seen by every query; None means all, 0 that each query has its own.
    """

    name: str
    queries: tuple[Query, ...]
    candidates: tuple[EmbedInput, ...]
    shared: int | None = None

    @property
    def pool(self) -> int:
        """Number of candidates that every query sees."""
        return len(self.candidates) if self.shared is None else self.shared


@dataclass(frozen=True, slots=True)
class EvalTask:
    """A task of a suite; its score is the mean over its parts.

    Attributes:
        name: for reports.
        meta_task: the kind of task, over which the second mean is taken.
        parts: ranking problems of equal weight.
        headline: the slice of queries that counts as the task's score.
        metrics: what the makers of the task report, the first of them its score; see `task_scores.task_scores`.
        group: tasks of one group, such as a modality, have a mean of their own; empty for none.
    """

    name: str
    meta_task: str
    parts: tuple[Part, ...]
    headline: str
    metrics: tuple[str, ...] = ("hit1",)
    group: str = ""

    def items(self) -> Iterator[EmbedInput]:
        """Everything that must be embedded; equal items come more than once."""
        for part in self.parts:
            yield from part.candidates
            for query in part.queries:
                yield query.item


def item_key(item: EmbedInput) -> str:
    """Return a stable name of an item: SHA-256 over its instruction and its content in order.

    Raises:
        InvalidInput: neither a text nor a picture that is given as bytes, path, string or PIL image.
    """
    digest = hashlib.sha256(repr(item.instruction).encode())
    for content in item.content:
        if not isinstance(content, (Text, Image)) or (isinstance(content, Image) and content.region is not None):
            kind = "region" if isinstance(content, Image) else type(content).__name__
            raise InvalidInput(f"texts and pictures can be evaluated, but an item holds a {kind}")
        data = content.text.encode() if isinstance(content, Text) else _picture_bytes(content)
        digest.update(f"|{type(content).__name__} {len(data)}|".encode())
        digest.update(data)
    return digest.hexdigest()


def _picture_bytes(image: Image) -> bytes:
    source = image.source
    if isinstance(source, bytes):
        return source
    if isinstance(source, Path):
        return source.read_bytes()
    if isinstance(source, PIL.Image.Image):
        return f"{source.mode} {source.size} ".encode() + source.tobytes()
    if isinstance(source, str):
        return source.encode()
    raise InvalidInput(f"a picture must be bytes, a path, a string or a PIL image, but is {type(source).__name__}")
