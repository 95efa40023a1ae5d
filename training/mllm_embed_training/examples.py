"""What one training example is, for both stages."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import PIL.Image

from mllm_embed.media import MediaPolicy, load_sync
from mllm_embed.tasks import Task
from mllm_embed.types import Content, EmbedInput, Image, Text

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a contrastive pair: its content, and a key that equal contents share whatever their augmentation."""

    content: tuple[Content, ...]
    key: str

    def texts(self) -> list[str]:
        """Return the texts in it."""
        return [content.text for content in self.content if isinstance(content, Text)]


@dataclass(frozen=True, slots=True)
class Example:
    """A contrastive example: a query, its positive, explicit negatives, and the task that gives the instructions."""

    query: Side
    positive: Side
    task: Task
    negatives: tuple[Side, ...] = ()

    def texts(self) -> list[str]:
        """Return the texts of query and positive."""
        return self.query.texts() + self.positive.texts()


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A generative example: what the user shows and asks, and the answer to learn."""

    content: tuple[Content, ...]
    answer: str

    def texts(self) -> list[str]:
        """Return the texts of question and answer."""
        return [*Side(self.content, "").texts(), self.answer]


@dataclass(frozen=True)
class ExampleTask(Generic[T]):
    """Rows and a function that makes an example of one; all randomness comes from the given generator."""

    rows: Sequence[Any]
    draw: Callable[[Any, random.Random], T]


def pictures(item: EmbedInput) -> list[PIL.Image.Image]:
    """Load the pictures of an input through the library's loader, as serving does."""
    policy = MediaPolicy.local()
    return [load_sync(content, policy) for content in item.content if isinstance(content, Image)]
