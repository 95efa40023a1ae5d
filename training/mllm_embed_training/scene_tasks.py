"""Contrastive tasks on pictures of several things: find the part that is named, name the thing on one side."""

from __future__ import annotations

import io
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

import PIL.Image

from mllm_embed.evaluation.mini_mmeb_rows import SIDES, emoji_name, look_text, truth_text
from mllm_embed.evaluation.scenes import (
    CELL,
    GRID,
    LEAST,
    MOST,
    cut_cell,
    draw_scene,
    grid_corners,
    scene_objects,
    unmistakable,
)
from mllm_embed.tasks import DEFAULT, Task, get_task
from mllm_embed.types import Image, Text
from mllm_embed_training.errors import CorruptRow
from mllm_embed_training.examples import Example, ExampleTask, Side
from mllm_embed_training.sources import Package, Row, grouped
from mllm_embed_training.statements import Statements

REFERENCE = 400
"""Scenes that tell how often a statement is true."""
NEGATIVES = 3
"""Most other parts of a scene that a named part is told from; with all of them a batch would be pictures mostly."""


def scene_tasks(package: Package) -> Mapping[str, Callable[[], ExampleTask[Example]]]:
    """Return the tasks by name; rows are read when a task is made. Scenes are never augmented: places are the point."""
    return {
        "nlvr-object": lambda: ExampleTask([row for row in package.scenes() if _can_be_asked(row)], _named_object),
        "nlvr-statement": lambda: _about_scenes([row for row in package.scenes() if row["structured"]]),
        "sprite-scene": lambda: _among_sprites(package, _named_sprite),
        "sprite-condition": lambda: _among_sprites(package, _named_side),
    }


def balanced(rows: Sequence[Row]) -> list[Row]:
    """Return rows of NLVR whose sentence alone tells nothing: each sentence is as often true as all of them are.

    A sentence is said of some two dozen scenes. Left out are sentences with one answer only, and of the others the rows
    whose answer they have too often, so that the picture is what is left to learn from (as VQA v2 balances questions:
    Goyal et al. 2017, arXiv:1612.00837).
    """
    if len({bool(row["label"]) for row in rows}) < 2:  # one answer says nothing of pictures
        return []
    share = mean(bool(row["label"]) for row in rows)
    answers: dict[str, tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
    for row in rows:
        answers[str(row["sentence"]).strip().casefold()][bool(row["label"])].append(row)
    kept: list[Row] = []
    for false, true in answers.values():
        whole = min(len(true) / share, len(false) / (1 - share))
        kept += [*true[: round(whole * share)], *false[: round(whole * (1 - share))]]
    return kept


def _can_be_asked(row: Row) -> bool:
    """Whether some object of a scene of NLVR has a name that fits no other one."""
    return bool(row["structured"]) and bool(unmistakable(scene_objects(row)))


def _among_sprites(
    package: Package, draw: Callable[[Row, Sequence[Row], random.Random], Example]
) -> ExampleTask[Example]:
    """Return a task of emoji pictures, each shown among others of its style."""
    rows = package.emoji()
    styles = {str(group[0]["style"]): group for group in grouped(rows, "style")}
    return ExampleTask(rows, lambda row, rng: draw(row, styles[row["style"]], rng))


def _named_object(row: Row, rng: random.Random) -> Example:
    """A scene of NLVR and what one of its objects is called; the crop of that object, from those of others."""
    objects = scene_objects(row)
    asked = rng.choice(unmistakable(objects))
    looks = {one.look: one for one in objects if one.look != asked.look}
    scene = PIL.Image.open(io.BytesIO(row["image"])).convert("RGB")
    crops = [
        Side((Image(one.crop(scene)),), f"object:{one.look}")
        for one in (asked, *rng.sample(list(looks.values()), min(NEGATIVES, len(looks))))
    ]
    query = Side((Image(scene), Text(asked.name)), f"{row['image_id']}|{asked.name}")
    return Example(query, crops[0], get_task("grounding"), tuple(crops[1:]))


def _about_scenes(rows: Sequence[Row]) -> ExampleTask[Example]:
    """Return a task of scenes of NLVR and statements about them, as many true as false."""
    statements = Statements(scene_objects(row) for row in rows[:REFERENCE])
    return ExampleTask(rows, lambda row, rng: _stated(row, statements, rng))


def _stated(row: Row, statements: Statements, rng: random.Random) -> Example:
    truth = rng.random() < 0.5
    sentence = statements.draw(scene_objects(row), truth, rng)
    if sentence is None:
        raise CorruptRow(f"scene {row['image_id']} has no statement that is {truth_text(truth)}")
    scene = Image(PIL.Image.open(io.BytesIO(row["image"])).convert("RGB"))
    right, wrong = (Side((Text(truth_text(one)),), truth_text(one)) for one in (truth, not truth))
    query = Side((scene, Text(sentence)), f"{row['image_id']}|{sentence}")
    return Example(query, right, get_task("question"), (wrong,))


def _named_sprite(row: Row, style: Sequence[Row], rng: random.Random) -> Example:
    """A scene of sprites and the name of one of them; its cell, from others."""
    members = [row, *_others(row, style, rng.randint(LEAST, MOST) - 1, rng)]
    corners = rng.sample(grid_corners(), len(members))
    scene = draw_scene([one["image"] for one in members], corners, GRID, GRID)
    cells = [
        Side((Image(cut_cell(scene, corner)),), f"image:{emoji_name(one['concept']).casefold()}")
        for one, corner in list(zip(members, corners, strict=True))[: 1 + NEGATIVES]
    ]
    query = Side((Image(scene), Text(emoji_name(row["concept"]))), "|".join(one["image_id"] for one in members))
    return Example(query, cells[0], get_task("grounding"), tuple(cells[1:]))


def _named_side(row: Row, style: Sequence[Row], rng: random.Random) -> Example:
    """Two sprites under the instruction to look at one; the name of that one, from the name of the other."""
    pair = [row, *_others(row, style, 1, rng)]
    rng.shuffle(pair)
    side = SIDES[0] if pair[0] is row else SIDES[-1]
    scene = draw_scene([one["image"] for one in pair], [(0, 0), (CELL, 0)], 2, 1)
    query = Side((Image(scene),), "|".join([side, *(one["image_id"] for one in pair)]))
    names = [emoji_name(one["concept"]) for one in sorted(pair, key=lambda one: one is not row)]
    shown, other = (Side((Text(name),), name.casefold()) for name in names)
    return Example(query, shown, Task(f"look-{side}", look_text(side), get_task(DEFAULT).target), (other,))


def _others(row: Row, style: Sequence[Row], count: int, rng: random.Random) -> list[Row]:
    """Draw pictures of a style that are called differently from `row` and from each other."""
    found = {emoji_name(row["concept"]): row}
    for one in rng.sample(style, min(len(style), 4 * (count + 1))):
        found.setdefault(emoji_name(one["concept"]), one)
    return list(found.values())[1 : count + 1]
