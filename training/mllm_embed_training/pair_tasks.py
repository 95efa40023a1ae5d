"""The contrastive tasks of `mllm-embed-mini`: rows of the data package -> query and positive."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from functools import partial

from mllm_embed.evaluation.mini_mmeb_rows import class_name, emoji_name, figure_text, icon_text, story_text
from mllm_embed.tasks import DEFAULT, Task, get_task
from mllm_embed.types import Image, Text
from mllm_embed_training.augment import Pictures, Texts, decode
from mllm_embed_training.examples import Example, ExampleTask, Side
from mllm_embed_training.sources import Package, Row

Describe = Callable[[Row, random.Random], str]
MakeTask = Callable[[], ExampleTask[Example]]

DEFAULT_SHARE = 0.2
"""Share of the pairs that are learned under the default instruction instead of their task's."""
MAX_NAME_BYTES = 36
"""Names in other scripts cost up to a token per byte of the small vocabulary; longer ones would pad whole batches."""


def pair_tasks(package: Package, pictures: Pictures, texts: Texts) -> Mapping[str, MakeTask]:
    """Return the tasks by name; rows are read when a task is made."""

    def both(rows: Callable[[], list[Row]], text: Describe, direction: str) -> MakeTask:
        return lambda: ExampleTask(
            rows(), partial(_text_and_image, pictures, texts, describe=text, direction=direction)
        )

    def described(name: str, rows: Callable[[], list[Row]], text: Describe) -> dict[str, MakeTask]:
        return {
            f"{name}-t2i": both(rows, text, "text-to-image"),
            f"{name}-i2t": both(rows, text, "image-to-text"),
        }

    return {
        **described("emoji", package.emoji, describe_emoji),
        **described("people", package.people, describe_emoji),
        **described("couples", package.couples, describe_emoji),
        **described("icon", package.icons, describe_icon),
        **described("figure", package.figures, describe_figure),
        **described("story", package.stories, lambda row, _: story_text(row)),
        **described("chart", package.charts, lambda row, _: row["spec_description"] or row["title"]),
        "emoji-i2i": lambda: ExampleTask(package.emoji_groups(), partial(_same_thing, pictures)),
        "icon-i2i": lambda: ExampleTask(package.icon_groups(), partial(_same_thing, pictures)),
        "emoji-near": lambda: ExampleTask(package.emoji_siblings(), partial(_near, pictures, texts)),
        "emoji-edit": lambda: ExampleTask(package.emoji_edits(), partial(_edit, pictures)),
        "emoji-group": lambda: ExampleTask(
            [r for r in package.emoji() if r["concept"]["group"]], partial(_emoji_group, pictures)
        ),
        "photo-class": lambda: ExampleTask(package.photos(), partial(_photo_class, pictures)),
        "nlvr": lambda: ExampleTask(package.scenes(), _nlvr),
        "emoji-synonyms": lambda: ExampleTask([r for r in package.emoji() if r["concept"]["tags_en"]], _synonyms),
    }


def describe_emoji(row: Row, rng: random.Random) -> str:
    """Name an emoji: mostly its English name, at times its tags or its name in another language."""
    concept = row["concept"]
    kind = rng.random()
    if kind < 0.1 and concept["tags_en"]:
        return ", ".join(rng.sample(concept["tags_en"], min(3, len(concept["tags_en"]))))
    if kind < 0.2 and (names := json.loads(concept["names"] or "{}")):
        name = str(names[rng.choice(sorted(names))])
        if len(name.encode()) <= MAX_NAME_BYTES:
            return name
    return emoji_name(concept)


def describe_icon(row: Row, rng: random.Random) -> str:
    """Name an icon: its name with its tags, or alone."""
    return icon_text(row) if rng.random() < 0.7 else str(row["name"])


def describe_figure(row: Row, rng: random.Random) -> str:
    """Describe a figure: its alternative text, or the first sentence of its caption."""
    if row["caption"] and rng.random() < 0.2:
        return " ".join(str(row["caption"]).split(". ")[0].split()[:40])
    return " ".join(figure_text(row).split()[:40])


def _text_and_image(
    pictures: Pictures, texts: Texts, row: Row, rng: random.Random, *, describe: Describe, direction: str
) -> Example:
    words = describe(row, rng)
    written = Side((Text(texts(words, rng)),), words.casefold())
    # The key of a picture is its name, so that two pictures of one name are never each other's negatives.
    drawn = Side((pictures(row, rng),), f"image:{words.casefold()}")
    query, positive = (written, drawn) if direction == "text-to-image" else (drawn, written)
    return Example(query, positive, _task(direction, rng))


def _task(name: str, rng: random.Random) -> Task:
    """Return the task, at times the default one: who gives no instruction must find things too."""
    return get_task(DEFAULT if rng.random() < DEFAULT_SHARE else name)


def _same_thing(pictures: Pictures, group: list[Row], rng: random.Random) -> Example:
    one, other = rng.sample(group, 2)
    key = str(one.get("concept_id") or one["name"])
    return Example(Side((pictures(one, rng),), key), Side((pictures(other, rng),), key), _task("image-to-image", rng))


def _near(pictures: Pictures, texts: Texts, row: tuple[Row, list[Row]], rng: random.Random) -> Example:
    """A name and its picture; a picture that differs in skin tone or gender only is the hard negative."""
    shown, family = row
    other = rng.choice([sibling for sibling in family if sibling is not shown])
    name = emoji_name(shown["concept"])
    query = Side((Text(texts(name, rng)),), name.casefold())
    positive, negative = (
        Side((pictures(row, rng),), f"image:{emoji_name(row['concept']).casefold()}") for row in (shown, other)
    )
    return Example(query, positive, get_task("text-to-image"), (negative,))


def _edit(pictures: Pictures, row: Row, rng: random.Random) -> Example:
    before, after = row["before"], row["after"]
    query = Side((pictures(before, rng), Text(row["edit"])), f"{before['image_id']}|{row['edit']}")
    unchanged = Side((pictures(before, rng),), before["image_id"])
    return Example(query, Side((pictures(after, rng),), after["image_id"]), get_task("composed"), (unchanged,))


def _emoji_group(pictures: Pictures, row: Row, rng: random.Random) -> Example:
    concept = row["concept"]
    name = concept["subgroup"] if concept["subgroup"] and rng.random() < 0.5 else concept["group"]
    return _classified(pictures, row, class_name(name), rng)


def _photo_class(pictures: Pictures, row: Row, rng: random.Random) -> Example:
    return _classified(pictures, row, class_name(row["label"]), rng)


def _classified(pictures: Pictures, row: Row, label: str, rng: random.Random) -> Example:
    return Example(
        Side((pictures(row, rng),), row["image_id"]), Side((Text(label),), label.casefold()), get_task("classification")
    )


def _nlvr(row: Row, rng: random.Random) -> Example:
    truth, other = ("true", "false") if row["label"] else ("false", "true")
    query = Side((Image(decode(row["image"])), Text(row["sentence"])), row["image_id"])
    del rng  # colours and places are the question, so the scene is not augmented
    return Example(query, Side((Text(truth),), truth), get_task("question"), (Side((Text(other),), other),))


def _synonyms(row: Row, rng: random.Random) -> Example:
    concept = row["concept"]
    tags = ", ".join(rng.sample(concept["tags_en"], min(4, len(concept["tags_en"]))))
    name = emoji_name(concept)
    return Example(Side((Text(tags),), tags.casefold()), Side((Text(name),), name.casefold()), get_task("text-to-text"))
