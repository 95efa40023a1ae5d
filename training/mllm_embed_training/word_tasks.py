"""Contrastive tasks between texts: keywords and names, captions and alternative texts, languages, parts of one text."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping

from mllm_embed.evaluation.mini_mmeb_rows import (
    caption_text,
    emoji_name,
    figure_text,
    icon_text,
    keywords_text,
    story_text,
)
from mllm_embed.tasks import get_task
from mllm_embed.types import Text
from mllm_embed_training.examples import Example, ExampleTask, Side
from mllm_embed_training.sources import Package, Row

MAX_WORDS = 40
"""Longer texts are cut: a batch takes as long as its longest ones."""
MIN_PART_WORDS = 3
MAX_PART_WORDS = 20
MAX_NAME_BYTES = 36
MAX_LONE_NAME_BYTES = 60
"""Of a name that is paired with a text."""
MAX_TEXT_BYTES = 200
"""Other scripts cost up to a token per byte of the small vocabulary; longer names and texts would pad whole batches."""

_SENTENCES = re.compile(r"(?<=[.!?;]) +")


def word_tasks(package: Package) -> Mapping[str, Callable[[], ExampleTask[Example]]]:
    """Return the tasks by name; rows are read when a task is made."""
    return {
        "emoji-synonyms": lambda: ExampleTask([r for r in package.emoji() if r["concept"]["tags_en"]], _synonyms),
        "english-texts": lambda: ExampleTask(english_texts(package), _alone),
        "emoji-languages": lambda: ExampleTask(names_by_language(package), _names),
        "figure-t2t": lambda: ExampleTask([r for r in package.figures() if r["caption"]], _caption_and_alt),
        "story-texts": lambda: ExampleTask([r for r in package.stories() if _translated(r)], _translation),
        "text-parts": lambda: ExampleTask(long_texts(package), _parts),
    }


def names_by_language(package: Package) -> list[tuple[str, str]]:
    """Return the names of every emoji concept in other languages, each with the English one."""
    named = [
        (name, emoji_name(concept))
        for concept in package.rows("emoji_concepts.parquet")
        for language, name in sorted(json.loads(concept["names"] or "{}").items())
        if language != "en"
    ]
    return [
        (name, english)
        for name, english in named
        if 0 < len(name.encode()) <= MAX_LONE_NAME_BYTES and name.casefold() != english.casefold()
    ]


def english_texts(package: Package) -> list[str]:
    """Return what train pictures are called and described by in English, whole and by sentence, each text once."""
    named = [emoji_name(row["concept"]) for row in package.emoji()] + [icon_text(row) for row in package.icons()]
    keywords = [keywords_text(row["concept"]) for row in package.emoji()]
    described = [text for row in package.figures() for text in (figure_text(row), caption_text(row))]
    described += [cut(story_text(row)) for row in package.stories()]
    sentences = [sentence for text in described for sentence in _SENTENCES.split(text)]
    return [text for text in dict.fromkeys((*named, *keywords, *described, *sentences)) if text]


def long_texts(package: Package) -> list[str]:
    """Return what is said of figures and in stories, in every language, if of enough words for two parts."""
    figures = [text for row in package.figures() for text in (figure_text(row), caption_text(row))]
    stories = [text for row in package.stories() for text in (story_text(row), *_translated(row))]
    return [text for text in dict.fromkeys((*figures, *stories)) if len(text.split()) >= 2 * MIN_PART_WORDS]


def in_some_language(row: Row, rng: random.Random) -> str:
    """Name an emoji in one of the languages that have a name for it, English among them; long names in English."""
    concept = row["concept"]
    names = json.loads(concept["names"] or "{}")
    name = str(names[rng.choice(sorted(names))]) if names else ""
    return name if name and len(name.encode()) <= MAX_NAME_BYTES else emoji_name(concept)


def story_in_some_language(row: Row, rng: random.Random) -> str:
    """Return a page's text, in English as often as not."""
    texts = _translated(row) if rng.random() < 0.5 else []
    return rng.choice(texts) if texts else cut(story_text(row))


def cut(text: str) -> str:
    """Return the first `MAX_WORDS` words."""
    return " ".join(text.split()[:MAX_WORDS])


def _synonyms(row: Row, rng: random.Random) -> Example:
    concept = row["concept"]
    tags = concept["tags_en"]
    some = ", ".join(rng.sample(tags, min(4, len(tags)))) if rng.random() < 0.5 else keywords_text(concept)
    return _pair(some, emoji_name(concept))


def _caption_and_alt(row: Row, rng: random.Random) -> Example:
    texts = [cut(caption_text(row)), cut(figure_text(row))]
    if rng.random() < 0.3:  # the suite asks from captions to alternative texts
        texts.reverse()
    return _pair(*texts)


def _alone(text: str, rng: random.Random) -> Example:
    """A text that a teacher is to be asked about: there is nothing to contrast it with but itself."""
    del rng
    return _pair(text, text)


def _names(row: tuple[str, str], rng: random.Random) -> Example:
    """A name and the English one; a third of the time the other way round."""
    return _pair(*(row if rng.random() < 2 / 3 else reversed(row)))


def _parts(text: str, rng: random.Random) -> Example:
    """Two stretches of one text, drawn independently (Izacard et al., Contriever, section 3.2)."""
    words = text.split()
    parts = []
    for _ in range(2):
        most = min(MAX_PART_WORDS, len(words) * 2 // 3)
        length = rng.randint(MIN_PART_WORDS, max(MIN_PART_WORDS, most))
        start = rng.randint(0, len(words) - length)
        parts.append(" ".join(words[start : start + length]))
    return _pair(*parts)


def _translation(row: Row, rng: random.Random) -> Example:
    return _pair(rng.choice(_translated(row)), cut(story_text(row)))


def _translated(row: Row) -> list[str]:
    """Return a page's texts in languages other than English, those that are not too long."""
    texts = json.loads(row["texts"] or "{}")
    words = [" ".join(str(texts[language] or "").split()) for language in sorted(texts) if language != "en"]
    return [cut(text) for text in words if text and len(cut(text).encode()) <= MAX_TEXT_BYTES]


def _pair(query: str, positive: str) -> Example:
    sides = (Side((Text(text),), text.casefold()) for text in (query, positive))
    return Example(next(sides), next(sides), get_task("text-to-text"))
