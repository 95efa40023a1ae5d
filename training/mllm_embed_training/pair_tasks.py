"""The contrastive tasks of `mllm-embed-mini`: rows of the data package -> query and positive."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial

from mllm_embed.evaluation.mini_mmeb_charts import questions_about
from mllm_embed.evaluation.mini_mmeb_rows import (
    CHART_QUESTIONS,
    class_name,
    emoji_name,
    figure_text,
    icon_text,
    story_text,
)
from mllm_embed.tasks import DEFAULT, Task, get_task
from mllm_embed.types import Image, Text
from mllm_embed_training.augment import Pictures, Texts, decode
from mllm_embed_training.examples import Example, ExampleTask, Side
from mllm_embed_training.picture_tasks import picture_tasks
from mllm_embed_training.scene_tasks import balanced, scene_tasks
from mllm_embed_training.sources import Package, Row
from mllm_embed_training.word_tasks import cut, in_some_language, story_in_some_language, word_tasks

Describe = Callable[[Row, random.Random], str]
Key = Callable[[Row], str]
"""Row -> what its picture is told from others by; equal for pictures that are never each other's negatives."""
MakeTask = Callable[[], ExampleTask[Example]]

DEFAULT_SHARE = 0.2
"""Share of the pairs that are learned under the default instruction instead of their task's."""
OTHER_TONES = 2
"""Most pictures in another skin tone than asked for, as negatives of an edit."""


def pair_tasks(package: Package, pictures: Pictures, texts: Texts) -> Mapping[str, MakeTask]:
    """Return the tasks by name; rows are read when a task is made."""

    def both(rows: Callable[[], list[Row]], text: Describe, key: Key, direction: str) -> MakeTask:
        return lambda: ExampleTask(
            rows(), partial(_text_and_image, pictures, texts, describe=text, key=key, direction=direction)
        )

    def described(name: str, rows: Callable[[], list[Row]], text: Describe, key: Key) -> dict[str, MakeTask]:
        return {
            f"{name}-t2i": both(rows, text, key, "text-to-image"),
            f"{name}-i2t": both(rows, text, key, "image-to-text"),
        }

    def emoji_class(level: str) -> MakeTask:
        return lambda: ExampleTask(
            [row for row in package.emoji() if row["concept"][level]], partial(_emoji_class, pictures, level=level)
        )

    return {
        **described("emoji", package.emoji, describe_emoji, emoji_key),
        **described("people", package.people, describe_emoji, emoji_key),
        **described("couples", package.couples, describe_emoji, emoji_key),
        **described("icon", package.icons, describe_icon, lambda row: str(row["name"])),
        **described("figure", package.figures, describe_figure, file_key),
        **described("story", package.stories, lambda row, _: cut(story_text(row)), story_key),
        **described(
            "chart", package.described_charts, lambda row, _: row["spec_description"] or row["title"], file_key
        ),
        **scene_tasks(package),
        **word_tasks(package),
        **picture_tasks(package, pictures),
        "emoji-names": both(package.emoji, in_some_language, emoji_key, "text-to-image"),
        "story-pages": both(package.stories, story_in_some_language, story_key, "text-to-image"),
        "doc-t2i": both(package.documents, describe_figure, file_key, "document"),
        "chart-mark": lambda: ExampleTask([r for r in package.charts() if questions_about(r)], _chart_question),
        "emoji-i2i": lambda: ExampleTask(package.emoji_groups(), partial(_same_thing, pictures)),
        "icon-i2i": lambda: ExampleTask(package.icon_groups(), partial(_same_thing, pictures)),
        "emoji-near": lambda: ExampleTask(package.emoji_siblings(), partial(_near, pictures, texts)),
        "emoji-edit": lambda: ExampleTask(package.emoji_edits(), partial(_edit, pictures)),
        # apart, since a batch of both would take the subgroup of a picture for a wrong answer to its group
        "emoji-group": emoji_class("group"),
        "emoji-subgroup": emoji_class("subgroup"),
        "figure-class": lambda: ExampleTask(package.figures_of_a_kind(), partial(_figure_class, pictures)),
        "photo-class": lambda: ExampleTask(package.photos(), partial(_photo_class, pictures)),
        "nlvr": lambda: ExampleTask(package.scenes(), _nlvr),
        "nlvr-balanced": lambda: ExampleTask(balanced(package.scenes()), _nlvr),
    }


def describe_emoji(row: Row, rng: random.Random) -> str:
    """Name an emoji: mostly its English name, at times its tags or its name in another language."""
    concept = row["concept"]
    kind = rng.random()
    if kind < 0.1 and concept["tags_en"]:
        return ", ".join(rng.sample(concept["tags_en"], min(3, len(concept["tags_en"]))))
    return in_some_language(row, rng) if kind < 0.2 else emoji_name(concept)


def describe_icon(row: Row, rng: random.Random) -> str:
    """Name an icon: its name with its tags, or alone."""
    return icon_text(row) if rng.random() < 0.7 else str(row["name"])


def describe_figure(row: Row, rng: random.Random) -> str:
    """Describe a figure: its alternative text, or its caption, or the caption's first sentence."""
    if row["caption"] and rng.random() < 0.3:
        caption = str(row["caption"])
        return cut(caption.split(". ", maxsplit=1)[0] if rng.random() < 0.5 else caption)
    return cut(figure_text(row))


def emoji_key(row: Row) -> str:
    """Return the English name, which all styles of an emoji share, whatever words it is asked for by."""
    return emoji_name(row["concept"])


def file_key(row: Row) -> str:
    """Return what names the picture itself."""
    return str(row["image_id"])


def story_key(row: Row) -> str:
    """Return the checksum of the picture, which several pages may show."""
    return str(row["sha"])


def _text_and_image(
    pictures: Pictures, texts: Texts, row: Row, rng: random.Random, *, describe: Describe, key: Key, direction: str
) -> Example:
    words = describe(row, rng)
    written = Side((Text(texts(words, rng)),), words.casefold())
    drawn = Side((pictures(row, rng),), f"image:{key(row).casefold()}")
    query, positive = (drawn, written) if direction == "image-to-text" else (written, drawn)
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
    positive, negative = (Side((pictures(row, rng),), f"image:{emoji_key(row).casefold()}") for row in (shown, other))
    return Example(query, positive, get_task("text-to-image"), (negative,))


def _edit(pictures: Pictures, row: Row, rng: random.Random) -> Example:
    """A picture and a change; the picture unchanged, and in another skin tone than asked for, are hard negatives.

    All are augmented alike: what is asked for is the same in the same style.
    """
    before, after = row["before"], row["after"]
    rows = [before, after, *rng.sample(row["others"], min(OTHER_TONES, len(row["others"])))]
    shown, positive, *others = pictures.alike(rows, rng)
    keys = [one["image_id"] for one in rows]
    query = Side((shown, Text(row["edit"])), f"{keys[0]}|{row['edit']}")
    wrong = zip((shown, *others), (keys[0], *keys[2:]), strict=True)
    negatives = tuple(Side((picture,), key) for picture, key in wrong)
    return Example(query, Side((positive,), keys[1]), get_task("composed"), negatives)


def _emoji_class(pictures: Pictures, row: Row, rng: random.Random, *, level: str) -> Example:
    return _classified(pictures, row, class_name(row["concept"][level]), rng)


def _photo_class(pictures: Pictures, row: Row, rng: random.Random) -> Example:
    return _classified(pictures, row, class_name(row["label"]), rng)


def _figure_class(pictures: Pictures, row: Row, rng: random.Random) -> Example:
    return _classified(pictures, row, str(row["kind"]), rng)


def _classified(pictures: Pictures, row: Row, label: str, rng: random.Random) -> Example:
    return Example(
        Side((pictures(row, rng),), row["image_id"]), Side((Text(label),), label.casefold()), get_task("classification")
    )


def _nlvr(row: Row, rng: random.Random) -> Example:
    truth, other = ("true", "false") if row["label"] else ("false", "true")
    query = Side((Image(decode(row["image"])), Text(row["sentence"])), row["image_id"])
    del rng  # colours and places are the question, so the scene is not augmented
    return Example(query, Side((Text(truth),), truth), get_task("question"), (Side((Text(other),), other),))


def _chart_question(row: Row, rng: random.Random) -> Example:
    """A chart and a question; the right answers, from what other questions about the chart are answered by."""
    answers = dict(questions_about(row))
    kind = rng.choice(sorted(answers))
    right = rng.sample(answers[kind], len(answers[kind]))
    wrong = sorted({answer for found in answers.values() for answer in found} - set(right))
    query = Side((Image(decode(row["image"])), Text(CHART_QUESTIONS[kind])), f"{row['image_id']}|{kind}")
    positive, *also = (Side((Text(text),), text.casefold()) for text in right)
    negatives = tuple(Side((Text(text),), text.casefold()) for text in wrong)
    return Example(query, positive, get_task("question"), negatives, tuple(also))
