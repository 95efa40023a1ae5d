"""What the public sets have in common: queries and candidates with the built-in instructions, captions both ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from mllm_embed.evaluation.eval_types import Part, Query
from mllm_embed.evaluation.mini_mmeb_pairs import text_target
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.tasks import get_task
from mllm_embed.types import Content, EmbedInput, Image, Text

HEADLINE = "test"
"""The slice of all queries."""


class Candidates:
    """Candidates in the order in which they come, equal ones once."""

    def __init__(self) -> None:
        self._places: dict[object, int] = {}
        self._items: list[EmbedInput] = []

    def place(self, key: object, make: Callable[[], EmbedInput]) -> int:
        """Return where the candidate with this key stands; it is made when it comes first."""
        if key not in self._places:
            self._places[key] = len(self._items)
            self._items.append(make())
        return self._places[key]

    def items(self) -> tuple[EmbedInput, ...]:
        """Return all of them."""
        return tuple(self._items)


def query(
    task: str, content: Iterable[Content], truths: Iterable[int], extras: Iterable[int] = (), *, instance: str = ""
) -> Query:
    """Return a query under the instruction of a built-in task."""
    item = EmbedInput(tuple(content), get_task(task).query)
    return Query(item, tuple(truths), (HEADLINE,), tuple(extras), instance)


def picture_targets(pictures: Iterable[Image]) -> tuple[EmbedInput, ...]:
    """Return pictures as candidates; the target instruction is the same in every built-in task."""
    target = get_task("text-to-image").target
    return tuple(EmbedInput((picture,), target) for picture in pictures)


def graded(one: Query, relevance: Mapping[int, float]) -> Query:
    """Return the query with its right candidates and how relevant each is."""
    places = tuple(sorted(relevance))
    return replace(one, truths=places, gains=tuple(relevance[place] for place in places))


def places_of_equal(texts: Iterable[str]) -> dict[str, list[int]]:
    """Return where each different text stands."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        places[text].append(place)
    return places


def both_ways(
    pictures: Sequence[Image], captions: Sequence[Sequence[str]], limit: int | None, *, part: str = "all"
) -> dict[str, Part]:
    """Captions find their picture (`t2i`), pictures any of their captions (`i2t`); equal captions are one candidate."""
    texts = list(dict.fromkeys(text for own in captions for text in own))
    places = {text: place for place, text in enumerate(texts)}
    shown: dict[str, list[int]] = defaultdict(list)
    for place, own in enumerate(captions):
        for text in dict.fromkeys(own):
            shown[text].append(place)
    to_image = [query("text-to-image", (Text(text),), shown[text]) for text in texts]
    to_text = [
        query("image-to-text", (picture,), sorted({places[text] for text in own}))
        for picture, own in zip(pictures, captions, strict=True)
    ]
    return {
        "t2i": Part(part, tuple(first(to_image, limit)), picture_targets(pictures)),
        "i2t": Part(part, tuple(first(to_text, limit)), tuple(map(text_target, texts))),
    }


def first(queries: Sequence[Query], limit: int | None) -> list[Query]:
    """Return so many queries, the first by hash of what they show; None returns all."""
    return hash_order(queries, _name)[:limit]


def squeezed(text: object) -> str:
    """Return a text on one line, with single spaces."""
    return " ".join(str(text).split())


def _name(one: Query) -> str:
    (content,) = one.item.content
    if isinstance(content, Text):
        return content.text
    source = content.source
    return source.name if isinstance(source, PurePath) else repr(content)
