"""Tasks of `mini-mmeb` in many languages: one part per language, the same instances in each."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mllm_embed.evaluation.data_folder import DataFolder, Row
from mllm_embed.evaluation.eval_types import Part, Query
from mllm_embed.evaluation.mini_mmeb_emoji import Emoji, Styles
from mllm_embed.evaluation.mini_mmeb_pairs import STORY_IMAGES, picture_target, text_target
from mllm_embed.evaluation.mini_mmeb_rows import story_text
from mllm_embed.evaluation.pools import Selection, build_pool, hash_order
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Text

NAMES = ("emoji_concepts.parquet", ("concept_id", "names"))
PAGE_TEXTS = ("story_pages.parquet", ("image_id", "sha", "text_en", "texts", "split"))
STYLE = "noto"
"""The style whose pictures are named."""
ASKED = 200
"""Concepts that each language is asked for; many languages need no more for a narrow interval."""
LEAST_SHARE = 0.9
"""A language counts if it names at least this share of the concepts that are asked for."""
LEAST_PAGES = 50
"""A language counts if at least so many held-out pages are written in it."""


@dataclass(frozen=True, slots=True)
class _Instance:
    """What is asked for in every language: its id, its place among the candidates, its split and its texts."""

    name: str
    place: int
    split: str
    texts: Mapping[str, str]


def emoji_names(data: DataFolder, styles: Styles, selection: Selection, size: int) -> list[Part]:
    """Names ask for their picture in one style, in every language that names nearly all of them."""
    pool = build_pool(
        styles.get(STYLE, ()), selection, size, name=lambda one: one.image_id, split=lambda one: one.split
    )
    names = {row["concept_id"]: _texts(row["names"]) for row in data.rows(*NAMES)}
    pictures = [_Instance(one.image_id, place, one.split, _names(names, one)) for place, one in enumerate(pool)]
    asked = [one for one in pictures if selection.is_held_out(one.split)][: selection.size(ASKED)]
    least = LEAST_SHARE * len(asked)
    candidates = tuple(picture_target(one.picture) for one in pool)
    return _by_language(pictures, asked, candidates, selection, least)


def story_pages(data: DataFolder, selection: Selection) -> list[Part]:
    """Page texts ask for their picture, in every language with enough held-out pages."""
    pictures = {row["image_sha"]: row for row in data.rows(*STORY_IMAGES)}
    rows = _held_out_pages(data, selection)
    shas = {sha: place for place, sha in enumerate(dict.fromkeys(row["sha"] for row in rows))}
    pages = [
        _Instance(row["image_id"], shas[row["sha"]], row["split"], {**_texts(row["texts"]), "en": row["text_en"]})
        for row in rows
    ]
    candidates = tuple(picture_target(pictures[sha]["image"]) for sha in shas)
    least = min(LEAST_PAGES, selection.pool_limit or LEAST_PAGES)
    return _by_language(pages, pages, candidates, selection, least)


def story_texts(data: DataFolder, selection: Selection) -> list[Part]:
    """Page texts ask for the English text of the same page, in every other language with enough held-out pages."""
    rows = [row for row in _held_out_pages(data, selection) if row["text_en"]]
    english = {text: place for place, text in enumerate(dict.fromkeys(map(story_text, rows)))}
    pages = [_Instance(row["image_id"], english[story_text(row)], row["split"], _texts(row["texts"])) for row in rows]
    least = min(LEAST_PAGES, selection.pool_limit or LEAST_PAGES)
    candidates = tuple(map(text_target, english))
    parts = _by_language(pages, pages, candidates, selection, least, task="text-to-text")
    return [part for part in parts if part.name != "en"]


def _held_out_pages(data: DataFolder, selection: Selection) -> list[Row]:
    """Pages whose picture is of their own split (not a duplicate of a train picture), in hash order."""
    splits = {row["image_sha"]: row["split"] for row in data.rows(*STORY_IMAGES)}
    rows = [row for row in data.rows(*PAGE_TEXTS) if selection.is_held_out(row["split"])]
    rows = [row for row in rows if splits.get(row["sha"]) == row["split"]]
    return hash_order(rows, lambda row: str(row["image_id"]))[: selection.pool_limit]


def _by_language(
    known: Sequence[_Instance],
    asked: Sequence[_Instance],
    candidates: tuple[EmbedInput, ...],
    selection: Selection,
    least: float,
    *,
    task: str = "text-to-image",
) -> list[Part]:
    """One part per language that has texts for `least` of what is asked; every candidate of an equal text is right."""
    languages = sorted({language for one in asked for language in one.texts})
    parts = []
    for language in languages:
        right: dict[str, set[int]] = defaultdict(set)
        for one in known:
            if text := one.texts.get(language):
                right[text].add(one.place)
        queries = tuple(
            Query(
                EmbedInput((Text(text),), get_task(task).query),
                tuple(sorted(right[text])),
                selection.slices(one.split),
                instance=one.name,
            )
            for one in asked
            if (text := one.texts.get(language))
        )
        if len(queries) >= least:
            parts.append(Part(language, queries, candidates))
    return parts


def _names(names: Mapping[str, Mapping[str, str]], emoji: Emoji) -> dict[str, str]:
    return {**names.get(emoji.concept_id, {}), "en": str(emoji.concept["label_en"])}


def _texts(column: str | None) -> dict[str, str]:
    """Read a JSON column of texts by language; white space is made single, empty texts are left out."""
    texts = {language: " ".join(str(text or "").split()) for language, text in json.loads(column or "{}").items()}
    return {language: text for language, text in texts.items() if text}
