"""The generative tasks of `mllm-embed-mini`: rows of the data package -> what is asked and what is answered."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial

from mllm_embed.evaluation.mini_mmeb_rows import class_name, emoji_name, figure_text, story_text
from mllm_embed.types import Image, Text
from mllm_embed_training.augment import Pictures, decode
from mllm_embed_training.examples import Dialogue, ExampleTask
from mllm_embed_training.sources import Package, Row

_NAME = ("What is this?", "Name this picture.", "What does the picture show?")
_DESCRIBE = ("Describe the picture.", "What can be seen here?")


def answer_tasks(package: Package, pictures: Pictures) -> Mapping[str, Callable[[], ExampleTask[Dialogue]]]:
    """Return the tasks by name; rows are read when a task is made."""
    return {
        "emoji-name": lambda: ExampleTask(package.emoji(), partial(_emoji_name, pictures)),
        "emoji-facts": lambda: ExampleTask(
            [r for r in package.emoji() if r["concept"]["tags_en"]], partial(_emoji_facts, pictures)
        ),
        "icon-name": lambda: ExampleTask(package.icons(), partial(_icon_name, pictures)),
        "figure-text": lambda: ExampleTask(package.figures(), partial(_figure_text, pictures)),
        "figure-kind": lambda: ExampleTask(package.figures_of_a_kind(), partial(_figure_kind, pictures)),
        "story-text": lambda: ExampleTask(package.stories(), partial(_story_text, pictures)),
        "photo-name": lambda: ExampleTask(package.photos(), partial(_photo_name, pictures)),
        "nlvr-question": lambda: ExampleTask(package.scenes(), _nlvr),
        "chart-text": lambda: ExampleTask(package.described_charts(), partial(_chart_text, pictures)),
        "emoji-words": lambda: ExampleTask([r for r in package.emoji() if r["concept"]["tags_en"]], _emoji_words),
    }


def _emoji_name(pictures: Pictures, row: Row, rng: random.Random) -> Dialogue:
    return Dialogue((pictures(row, rng), Text(rng.choice(_NAME))), emoji_name(row["concept"]))


def _emoji_facts(pictures: Pictures, row: Row, rng: random.Random) -> Dialogue:
    concept = row["concept"]
    if concept["group"] and rng.random() < 0.4:
        return Dialogue((pictures(row, rng), Text("Which group does this belong to?")), class_name(concept["group"]))
    tags = rng.sample(concept["tags_en"], min(4, len(concept["tags_en"])))
    return Dialogue((pictures(row, rng), Text("Give keywords for this picture.")), ", ".join(tags))


def _icon_name(pictures: Pictures, row: Row, rng: random.Random) -> Dialogue:
    return Dialogue((pictures(row, rng), Text("What is this icon?")), str(row["name"]))


def _figure_text(pictures: Pictures, row: Row, rng: random.Random) -> Dialogue:
    return Dialogue((pictures(row, rng), Text(rng.choice(_DESCRIBE))), _words(figure_text(row), 24))


def _figure_kind(pictures: Pictures, row: Row, rng: random.Random) -> Dialogue:
    return Dialogue((pictures(row, rng), Text("What kind of figure is this?")), str(row["kind"]))


def _story_text(pictures: Pictures, row: Row, rng: random.Random) -> Dialogue:
    return Dialogue((pictures(row, rng), Text("Tell the story of this picture.")), _words(story_text(row), 24))


def _photo_name(pictures: Pictures, row: Row, rng: random.Random) -> Dialogue:
    return Dialogue((pictures(row, rng), Text(rng.choice(_NAME))), class_name(row["label"]))


def _nlvr(row: Row, rng: random.Random) -> Dialogue:
    del rng  # colours and places are the question, so the scene is not augmented
    question = f"{row['sentence']} True or false?"
    return Dialogue((Image(decode(row["image"])), Text(question)), "true" if row["label"] else "false")


def _chart_text(pictures: Pictures, row: Row, rng: random.Random) -> Dialogue:
    if row["marks"] and rng.random() < 0.5:
        return Dialogue((pictures(row, rng), Text("Which marks does the chart use?")), ", ".join(row["marks"]))
    text = _words(row["spec_description"] or row["title"], 24)
    return Dialogue((pictures(row, rng), Text(rng.choice(_DESCRIBE))), text)


def _emoji_words(row: Row, rng: random.Random) -> Dialogue:
    """Text only: from keywords to the name and back, so that the language side learns which words belong together."""
    concept = row["concept"]
    tags = ", ".join(rng.sample(concept["tags_en"], min(4, len(concept["tags_en"]))))
    name = emoji_name(concept)
    if rng.random() < 0.5:
        return Dialogue((Text(f"What is this: {tags}?"),), name)
    return Dialogue((Text(f"Give keywords for: {name}."),), tags)


def _words(text: str, limit: int) -> str:
    return " ".join(text.split()[:limit])
