"""The tasks on drawn clips: the right answer is right, the wrong ones are wrong, and all are what they say."""

import random

import pytest

from mllm_embed.toy_people import ACTIONS, FRAMES, clips, describe, draw
from mllm_embed.types import Image, Text
from mllm_embed_training import toy_tasks
from mllm_embed_training.examples import Example, Side

pytestmark = pytest.mark.fast

TASKS = toy_tasks.pair_tasks()
CLIPS = {clip.caption: clip for clip in clips(toy_tasks.COUNT, seed=0)}


def examples(task: str, count: int = 30) -> list[Example]:
    made = TASKS[task]()
    return [made.draw(made.rows[row], random.Random(row)) for row in range(count)]


def shown(side: Side) -> bytes:
    assert side.key.startswith("clip:")
    pictures = [part.source for part in side.content if isinstance(part, Image)]
    assert len(pictures) == FRAMES
    return b"".join(picture.tobytes() for picture in pictures)  # type: ignore[union-attr]


def drawn(caption: str) -> bytes:
    return b"".join(frame.tobytes() for frame in CLIPS[caption].frames())


def test_captions_and_clips_belong_together() -> None:
    for one in examples("toy-t2v"):
        assert shown(one.positive) == drawn(one.query.texts()[0])
    for one in examples("toy-v2t"):
        caption = one.positive.texts()[0]
        assert shown(one.query) == drawn(caption)
        changed = [
            sum(a != b for a, b in zip(caption.split(", "), n.texts()[0].split(", "), strict=True))
            for n in one.negatives
        ]
        assert changed == [1, 1], "a wrong caption is wrong in what is done, or from where it is seen"


def test_an_action_is_told_from_others() -> None:
    for one, clip in zip(examples("toy-action"), clips(30, seed=0), strict=True):
        assert one.positive.texts() == [clip.person.action]
        assert shown(one.query) == drawn(clip.caption)
        wrong = [side.texts()[0] for side in one.negatives]
        assert len(set(wrong)) == toy_tasks.WRONG_ACTIONS
        assert set(wrong) <= set(ACTIONS) - {clip.person.action}


def test_an_edit_shows_what_was_asked_for_and_the_clip_as_it_was_is_wrong() -> None:
    for one, clip in zip(examples("toy-clip-edit"), clips(30, seed=0), strict=True):
        assert one.query.content[-1] == Text(clip.edit.sentence)
        assert one.positive.key == f"clip:{describe(clip.edit.person)}"
        assert shown(one.positive) == b"".join(frame.tobytes() for frame in draw(clip.edit.person, clip.look))
        assert [side.key for side in one.negatives] == [f"clip:{clip.caption}"]
        assert shown(one.positive) != shown(one.negatives[0]) == drawn(clip.caption)
