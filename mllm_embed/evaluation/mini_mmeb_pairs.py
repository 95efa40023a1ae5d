"""Tasks of `mini-mmeb` between texts and pictures: icons, textbook figures, picture books, and emoji by style."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import Part, Query
from mllm_embed.evaluation.mini_mmeb_rows import caption_text, figure_text, icon_text, story_text
from mllm_embed.evaluation.pools import Selection, build_pool
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Image, Text

ICONS = ("icons.parquet", ("image_id", "name", "tags", "image", "split"))
FIGURES = ("openstax_figures-*.parquet", ("image_id", "alt", "image", "split"))
CAPTIONS = ("openstax_figures-*.parquet", ("image_id", "caption", "image", "split"))
PAGES = ("openstax_docs_hires.parquet", ("image_id", "image", "split"))
STORY_PAGES = ("story_pages.parquet", ("image_id", "sha", "text_en", "split"))
STORY_IMAGES = ("story_images.parquet", ("image_sha", "image", "split"))


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and the picture that belongs to it.

    Attributes:
        pair_id: what pools are ordered by.
        text: the text; a picture without one is a candidate that nothing asks for.
        picture_id: pairs of one picture share it.
        picture: encoded bytes.
        split: the row's split.
    """

    pair_id: str
    text: str
    picture_id: str
    picture: bytes
    split: str


def icons(data: DataFolder) -> list[Pair]:
    """Icons with their names and tags."""
    rows = (row for row in data.rows(*ICONS) if row["name"])
    return [Pair(row["image_id"], icon_text(row), row["image_id"], row["image"], row["split"]) for row in rows]


def figures(data: DataFolder) -> list[Pair]:
    """Textbook figures with their alternative text."""
    rows = (row for row in data.rows(*FIGURES) if row["alt"])
    return [Pair(row["image_id"], figure_text(row), row["image_id"], row["image"], row["split"]) for row in rows]


def figure_captions(data: DataFolder) -> list[Pair]:
    """All textbook figures, with their captions where they have one."""
    rows = data.rows(*CAPTIONS)
    return [Pair(row["image_id"], caption_text(row), row["image_id"], row["image"], row["split"]) for row in rows]


def pages(data: DataFolder) -> list[Pair]:
    """Graphs, tables, maps and screenshots at reading size, with the alternative text of the figure that they show."""
    described = {row["image_id"]: row for row in data.rows(*FIGURES) if row["alt"]}
    rows = [row for row in data.rows(*PAGES) if row["image_id"] in described]
    return [
        Pair(row["image_id"], figure_text(described[row["image_id"]]), row["image_id"], row["image"], row["split"])
        for row in rows
        if described[row["image_id"]]["split"] == row["split"]  # else it is a duplicate of a train figure
    ]


def stories(data: DataFolder) -> list[Pair]:
    """Picture-book pages whose picture is of the page's own split (not a duplicate of a train picture)."""
    pictures = {row["image_sha"]: row for row in data.rows(*STORY_IMAGES)}
    pages = [row for row in data.rows(*STORY_PAGES) if row["sha"] in pictures and row["text_en"]]
    return [
        Pair(page["image_id"], story_text(page), page["sha"], pictures[page["sha"]]["image"], page["split"])
        for page in pages
        if pictures[page["sha"]]["split"] == page["split"]
    ]


def text_to_image(
    pairs: Sequence[Pair], selection: Selection, size: int | None, *, name: str = "all", task: str = "text-to-image"
) -> Part:
    """Texts ask for their pictures; every picture of an equal text is right."""
    pool = _pool(pairs, selection, size, lambda pair: pair.picture_id)
    places = _places(pair.picture_id for pair in pool)
    right: dict[str, set[int]] = defaultdict(set)
    for pair in pool:
        right[pair.text].add(places[pair.picture_id])
    asked = _asked(pool, selection, lambda pair: pair.text)
    return Part(
        name,
        tuple(
            Query(
                EmbedInput((Text(pair.text),), get_task(task).query),
                tuple(sorted(right[pair.text])),
                selection.slices(pair.split),
            )
            for pair in asked
        ),
        tuple(picture_target(pair.picture) for pair in _first(pool, lambda pair: pair.picture_id)),
    )


def image_to_text(pairs: Sequence[Pair], selection: Selection, size: int | None, *, name: str = "all") -> Part:
    """Pictures ask for their texts; equal texts are one candidate."""
    pool = _pool(pairs, selection, size, lambda pair: pair.text)
    places = _places(pair.text for pair in pool)
    right: dict[str, set[int]] = defaultdict(set)
    for pair in pool:
        right[pair.picture_id].add(places[pair.text])
    asked = _asked(pool, selection, lambda pair: pair.picture_id)
    return Part(
        name,
        tuple(
            Query(
                EmbedInput((Image(pair.picture),), get_task("image-to-text").query),
                tuple(sorted(right[pair.picture_id])),
                selection.slices(pair.split),
            )
            for pair in asked
        ),
        tuple(text_target(text) for text in places),
    )


def picture_target(picture: bytes) -> EmbedInput:
    """Return a picture as a candidate; the target instruction is the same in every built-in task."""
    return EmbedInput((Image(picture),), get_task("text-to-image").target)


def text_target(text: str) -> EmbedInput:
    """Return a text as a candidate; the target instruction is the same in every built-in task."""
    return EmbedInput((Text(text),), get_task("image-to-text").target)


def _pool(pairs: Sequence[Pair], selection: Selection, size: int | None, equal: Callable[[Pair], str]) -> list[Pair]:
    return build_pool(
        pairs, selection, size, name=lambda pair: pair.pair_id, split=lambda pair: pair.split, equal=equal
    )


def _asked(pool: Sequence[Pair], selection: Selection, same: Callable[[Pair], str]) -> list[Pair]:
    """One query per different text or picture and split; of the train rows only some."""
    # The order, by last occurrence, decides which train rows are asked: published numbers rest on it.
    by_name = {f"{pair.split}\0{same(pair)}": pair for pair in reversed(pool) if pair.text}
    different = list(by_name.values())[::-1]
    train = [pair for pair in different if pair.split == "train"]
    return [pair for pair in different if pair.split != "train"] + train[: selection.train_queries]


def _first(pairs: Sequence[Pair], same: Callable[[Pair], str]) -> list[Pair]:
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(same(pair), pair)
    return list(first.values())


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(dict.fromkeys(names))}
