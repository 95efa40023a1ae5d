"""Pictures alone, as a teacher of pictures compares them: a task for each kind, so that a batch has one kind."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from functools import partial

from mllm_embed.tasks import get_task
from mllm_embed_training.augment import Pictures
from mllm_embed_training.examples import Example, ExampleTask, Side
from mllm_embed_training.sources import Package, Row

PICTURE_TASKS = ("figure-pictures", "photo-pictures", "story-pictures")


def picture_tasks(package: Package, pictures: Pictures) -> Mapping[str, Callable[[], ExampleTask[Example]]]:
    """Return the tasks by name; rows are read when a task is made."""
    kinds: tuple[Callable[[], list[Row]], ...] = (package.figures, package.photos, package.stories)
    return {name: partial(_make, rows, pictures) for name, rows in zip(PICTURE_TASKS, kinds, strict=True)}


def _make(rows: Callable[[], list[Row]], pictures: Pictures) -> ExampleTask[Example]:
    """Return every picture of some rows once: several pages can show one."""
    distinct = {row["image"]: row for row in rows()}
    return ExampleTask(list(distinct.values()), partial(_alone, pictures))


def _alone(pictures: Pictures, row: Row, rng: random.Random) -> Example:
    side = Side((pictures(row, rng),), hashlib.sha256(row["image"]).hexdigest())
    return Example(side, side, get_task("image-to-image"))
