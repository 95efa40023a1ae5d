"""The same two kinds of tasks on drawn shapes and drawn clips: every recipe can be tried without any data package."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from mllm_embed.tasks import get_task
from mllm_embed.toy_people import ACTIONS, VIEWS, Person, ToyClip, clips, describe, draw
from mllm_embed.toy_shapes import ToyScene, scenes
from mllm_embed.types import Image, Text
from mllm_embed_training.examples import Dialogue, Example, ExampleTask, Side

COUNT = 2000
"""Scenes in the toy set, and clips."""
WRONG_ACTIONS = 3
"""Names of other actions that an action is told from, beyond those of the batch."""


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
        "toy-t2v": lambda: ExampleTask(clips(COUNT, seed=0), _text_to_clip),
        "toy-v2t": lambda: ExampleTask(clips(COUNT, seed=0), _clip_to_text),
        "toy-action": lambda: ExampleTask(clips(COUNT, seed=0), _action),
        "toy-clip-edit": lambda: ExampleTask(clips(COUNT, seed=0), _edited_clip),
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
    return _text(scene.caption)


def _drawn(scene: ToyScene) -> Side:
    return Side((Image(scene.image),), scene.caption)


def _text_to_clip(clip: ToyClip, _rng: random.Random) -> Example:
    return Example(_text(clip.caption), _shown(clip), get_task("text-to-image"))


def _clip_to_text(clip: ToyClip, rng: random.Random) -> Example:
    """A clip and its caption; the same person who does something else, or is seen from another side, is wrong."""
    wrong = (
        replace(clip.person, action=_other(ACTIONS, clip.person.action, rng)),
        replace(clip.person, view=_other(VIEWS, clip.person.view, rng)),
    )
    negatives = tuple(_text(describe(person)) for person in wrong)
    return Example(_shown(clip), _text(clip.caption), get_task("image-to-text"), negatives)


def _action(clip: ToyClip, rng: random.Random) -> Example:
    wrong = rng.sample([name for name in ACTIONS if name != clip.person.action], WRONG_ACTIONS)
    negatives = tuple(_text(name) for name in wrong)
    return Example(_shown(clip), _text(clip.person.action), get_task("classification"), negatives)


def _edited_clip(clip: ToyClip, _rng: random.Random) -> Example:
    """A clip and a wish; the clip as it was is wrong."""
    shown = _shown(clip)
    query = Side((*shown.content, Text(clip.edit.sentence)), f"{shown.key}|{clip.edit.sentence}")
    return Example(query, _shown(clip, clip.edit.person), get_task("composed"), (shown,))


def _shown(clip: ToyClip, person: Person | None = None) -> Side:
    """Draw a clip, or another person in its look."""
    seen = person or clip.person
    return Side(tuple(Image(frame) for frame in draw(seen, clip.look)), f"clip:{describe(seen)}")


def _text(text: str) -> Side:
    return Side((Text(text),), text)


def _other(names: Collection[str], name: str, rng: random.Random) -> str:
    return rng.choice([other for other in names if other != name])
