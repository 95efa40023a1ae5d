"""The same two kinds of tasks on drawn shapes, so that every recipe can be tried without any data package."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from mllm_embed.tasks import get_task
from mllm_embed.toy_shapes import ToyScene, scenes
from mllm_embed.types import Image, Text
from mllm_embed_training.examples import Dialogue, Example, ExampleTask, Side

COUNT = 2000
"""Scenes in the toy set."""


def answer_tasks() -> Mapping[str, Callable[[], ExampleTask[Dialogue]]]:
    """Return the generative toy tasks."""
    return {
        "toy-caption": lambda: ExampleTask(_rows(), _caption),
        "toy-question": lambda: ExampleTask(_rows(), _question),
    }


def pair_tasks() -> Mapping[str, Callable[[], ExampleTask[Example]]]:
    """Return the contrastive toy tasks."""
    return {
        "toy-t2i": lambda: ExampleTask(_rows(), _text_to_image),
        "toy-i2t": lambda: ExampleTask(_rows(), _image_to_text),
        "toy-edit": lambda: ExampleTask(_rows(), _edit),
    }


def _rows() -> list[ToyScene]:
    return list(scenes(COUNT, seed=0))


def _caption(scene: ToyScene, _rng: random.Random) -> Dialogue:
    return Dialogue((Image(scene.image), Text("Describe the picture.")), scene.caption)


def _question(scene: ToyScene, rng: random.Random) -> Dialogue:
    question = rng.choice(scene.questions)
    return Dialogue((Image(scene.image), Text(question.text)), question.answer)


def _text_to_image(scene: ToyScene, _rng: random.Random) -> Example:
    return Example(_written(scene), _drawn(scene), get_task("text-to-image"))


def _image_to_text(scene: ToyScene, _rng: random.Random) -> Example:
    return Example(_drawn(scene), _written(scene), get_task("image-to-text"))


def _edit(scene: ToyScene, _rng: random.Random) -> Example:
    query = Side((Image(scene.image), Text(scene.edit.sentence)), f"{scene.caption}|{scene.edit.sentence}")
    edited = Side((Image(scene.edit.image),), scene.edit.caption)
    return Example(query, edited, get_task("composed"), (_drawn(scene),))


def _written(scene: ToyScene) -> Side:
    return Side((Text(scene.caption),), scene.caption)


def _drawn(scene: ToyScene) -> Side:
    return Side((Image(scene.image),), scene.caption)
