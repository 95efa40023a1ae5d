"""What one training example is, for both stages."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import PIL.Image

from mllm_embed import media, video
from mllm_embed.media import MediaPolicy
from mllm_embed.tasks import Task
from mllm_embed.types import Content, EmbedInput, Image, Text, Video

T = TypeVar("T")


class Rows(Protocol):
    """Rows that can be read at random."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


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
    """A contrastive example.

    Attributes:
        query: what is asked.
        positive: the right answer.
        task: gives the instructions.
        negatives: wrong answers of its own.
        also: further right answers, never contrasted with the query.
        grades: how right `positive` and those are, above 0; equal if empty.
        scores: a judge's, of `positive` and the negatives; empty without a judge.
    """

    query: Side
    positive: Side
    task: Task
    negatives: tuple[Side, ...] = ()
    also: tuple[Side, ...] = ()
    grades: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()

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
    """Rows and a function that makes an example of one; all randomness comes from the given generator.

    Attributes:
        rows: anything with a length and items.
        draw: row, generator -> example; raises CorruptRow where that cannot be.
        answer: row -> what its answer is called, equal where answers are; None if the task cannot tell.
    """

    rows: Rows
    draw: Callable[[Any, random.Random], T]
    answer: Callable[[Any], str] | None = None


def opened(item: EmbedInput, *, timed: bool = False) -> tuple[EmbedInput, list[PIL.Image.Image]]:
    """Load pictures and videos through the library's loaders, as serving does.

    Args:
        item: what is shown.
        timed: each frame of a video stands behind its second.

    Returns:
        the input with its videos as their frames, and its pictures in order.

    Raises:
        InputError: one cannot be loaded.
    """
    policy = MediaPolicy.local()
    content: list[Content] = []
    for part in item.content:
        if isinstance(part, Video):
            content += video.load_sync(part, policy).content(timed=timed)
        else:
            content.append(Image(media.load_sync(part, policy)) if isinstance(part, Image) else part)
    pictures = [part.source for part in content if isinstance(part, Image)]
    return replace(item, content=tuple(content)), [one for one in pictures if isinstance(one, PIL.Image.Image)]
