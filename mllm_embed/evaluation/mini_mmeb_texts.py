"""Tasks of `mini-mmeb` without pictures, for text embedders too: keywords and names, captions and alt texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import Part, Query
from mllm_embed.evaluation.mini_mmeb_pairs import text_target
from mllm_embed.evaluation.mini_mmeb_rows import caption_text, emoji_name, figure_text, keywords_text
from mllm_embed.evaluation.pools import Selection, build_pool
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Text

KEYWORDS = ("emoji_concepts.parquet", ("concept_id", "label_en", "tags_en", "split"))
FIGURE_TEXTS = ("openstax_figures-*.parquet", ("image_id", "alt", "caption", "split"))


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two texts that mean the same, the id that pools are ordered by, and the row's split."""

    pair_id: str
    asked: str
    answer: str
    split: str


def emoji_words(data: DataFolder, selection: Selection, size: int) -> Part:
    """Keywords ask for the English name of their emoji; skin tones share their keywords, so each of them is right."""
    rows = (row for row in data.rows(*KEYWORDS) if row["tags_en"])
    return _text_to_text(
        [_Pair(row["concept_id"], keywords_text(row), emoji_name(row), row["split"]) for row in rows], selection, size
    )


def figure_texts(data: DataFolder, selection: Selection) -> Part:
    """Captions of textbook figures ask for the alternative text of the same figure."""
    rows = (row for row in data.rows(*FIGURE_TEXTS) if row["alt"] and row["caption"])
    return _text_to_text(
        [_Pair(row["image_id"], caption_text(row), figure_text(row), row["split"]) for row in rows], selection, None
    )


def _text_to_text(pairs: Sequence[_Pair], selection: Selection, size: int | None) -> Part:
    """Texts ask for texts: one query per different text and split, of the train rows only some."""
    pool = build_pool(
        pairs, selection, size, name=lambda one: one.pair_id, split=lambda one: one.split, equal=lambda one: one.answer
    )
    places = {answer: place for place, answer in enumerate(dict.fromkeys(pair.answer for pair in pool))}
    right: dict[str, set[int]] = defaultdict(set)
    for pair in pool:
        right[pair.asked].add(places[pair.answer])
    different = {(pair.split, pair.asked): pair for pair in reversed(pool)}.values()
    held_out = [pair for pair in reversed(different) if pair.split != "train"]
    train = [pair for pair in reversed(different) if pair.split == "train"]
    return Part(
        "all",
        tuple(
            Query(
                EmbedInput((Text(pair.asked),), get_task("text-to-text").query),
                tuple(sorted(right[pair.asked])),
                selection.slices(pair.split),
            )
            for pair in held_out + train[: selection.train_queries]
        ),
        tuple(text_target(answer) for answer in places),
    )
