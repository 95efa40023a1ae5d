"""Tasks of `mini-mmeb` on scenes of several things: find what is named, and say what stands on one side."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import PIL.Image

from mllm_embed.evaluation.data_folder import DataFolder, Row
from mllm_embed.evaluation.eval_types import Part, Query
from mllm_embed.evaluation.mini_mmeb_emoji import CONCEPTS, Emoji, Styles
from mllm_embed.evaluation.mini_mmeb_pairs import text_target
from mllm_embed.evaluation.mini_mmeb_rows import SIDES, emoji_name, look_text
from mllm_embed.evaluation.pools import Selection, hash_number, hash_order
from mllm_embed.evaluation.scenes import (
    CELL,
    GRID,
    LEAST,
    MOST,
    Corner,
    SceneObject,
    cut_cell,
    draw_scene,
    grid_corners,
    scene_objects,
    unmistakable,
)
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Image, Text

OBJECTS = ("nlvr.parquet", ("image_id", "structured", "image", "split"))
NLVR_SCENES = 500
"""Scenes that are asked about; the data have more, of the same few kinds."""


def named_objects(data: DataFolder, selection: Selection) -> Part:
    """A scene and the name of one object ask for its crop, among the crops of the scene's objects.

    Of each scene the first object is asked, in hash order, whose name fits no other object in the same box.
    """
    scenes = [row for row in data.rows(*OBJECTS) if selection.is_held_out(row["split"]) and row["structured"]]
    scenes = hash_order(scenes, lambda row: str(row["image_id"]))
    distinct = {row["image"]: row for row in reversed(scenes)}  # the same picture stands under several sentences
    queries: list[Query] = []
    crops: list[EmbedInput] = []
    for row in hash_order(distinct.values(), lambda row: str(row["image_id"])):
        if len(queries) == selection.size(NLVR_SCENES):
            break
        found = scene_objects(row)
        kinds = {one.look: one for one in reversed(found)}  # the first object of each look
        asked = _asked(row, found)
        if asked is None or len(kinds) < 2:
            continue
        item = EmbedInput((Image(row["image"]), Text(asked.name)), get_task("grounding").query)
        own = tuple(range(len(crops), len(crops) + len(kinds)))
        queries.append(Query(item, (own[list(kinds).index(asked.look)],), selection.slices(row["split"]), own))
        scene = PIL.Image.open(io.BytesIO(row["image"])).convert("RGB")
        crops += [_target(one.crop(scene)) for one in kinds.values()]
    return Part("all", tuple(queries), tuple(crops), shared=0)


def sprites_in_scenes(styles: Styles, selection: Selection) -> Part:
    """A scene of 4 to 9 held-out sprites and the name of one ask for its crop, among the crops of the scene."""
    queries: list[Query] = []
    crops: list[EmbedInput] = []
    for style, sprites in _held_out(styles, selection):
        for members in _groups(style, sprites, selection):
            scene, corners = _grid_scene(style, members)
            own = tuple(range(len(crops), len(crops) + len(members)))
            crops += [_target(cut_cell(scene, corner)) for corner in corners]
            for place, one in zip(own, members, strict=True):
                item = EmbedInput((Image(scene), Text(emoji_name(one.concept))), get_task("grounding").query)
                queries.append(Query(item, (place,), (*selection.slices(one.split), style), own))
    return Part("all", tuple(queries), tuple(crops), shared=0)


def sides_of_scenes(data: DataFolder, styles: Styles, selection: Selection) -> Part:
    """A picture of two sprites, read under the instruction to look at one side, asks for the name of that one.

    The candidates are the names of all concepts. Both sides are asked of the same picture.
    """
    names = sorted({emoji_name(row) for row in data.rows(*CONCEPTS) if selection.is_usable(row["split"])})
    places = {name: place for place, name in enumerate(names)}
    queries: list[Query] = []
    for style, sprites in _held_out(styles, selection):
        for left, right in zip(sprites[::2], sprites[1::2], strict=False):
            scene = Image(draw_scene([left.picture, right.picture], [(0, 0), (CELL, 0)], 2, 1))
            for side, one in ((SIDES[0], left), (SIDES[-1], right)):
                item = EmbedInput((scene,), look_text(side))
                slices = (*selection.slices(one.split), side, style)
                truth = (places[emoji_name(one.concept)],)
                queries.append(Query(item, truth, slices, instance=f"{left.image_id} {right.image_id}"))
    return Part("all", tuple(queries), tuple(text_target(name) for name in names))


def _asked(row: Row, objects: Sequence[SceneObject]) -> SceneObject | None:
    """Return the first object in hash order whose name fits no other, None where every name fits several."""
    clear = unmistakable(objects)
    return hash_order(clear, lambda one: f"{row['image_id']} {one.name}")[0] if clear else None


def _target(crop: PIL.Image.Image) -> EmbedInput:
    return EmbedInput((Image(crop),), get_task("grounding").target)


def _held_out(styles: Styles, selection: Selection) -> Iterator[tuple[str, list[Emoji]]]:
    """Held-out sprites of different names by style, in hash order."""
    for style, emoji in styles.items():
        held_out = hash_order((one for one in emoji if selection.is_held_out(one.split)), lambda one: one.image_id)
        limit = None if selection.pool_limit is None else max(selection.pool_limit, MOST)  # enough for one scene
        yield style, list({emoji_name(one.concept): one for one in held_out}.values())[:limit]


def _groups(style: str, sprites: Sequence[Emoji], selection: Selection) -> Iterator[list[Emoji]]:
    """Cut the sprites into scenes of 4 to 9, sizes by hash; a rest that is too small is left out."""
    start = number = 0
    while len(sprites) - start >= LEAST:
        size = LEAST + hash_number(f"{selection.prefix} {style} {number}") % (MOST - LEAST + 1)
        yield list(sprites[start : start + size])
        start, number = start + size, number + 1


def _grid_scene(style: str, members: Sequence[Emoji]) -> tuple[PIL.Image.Image, list[Corner]]:
    """Put sprites into different cells of a grid, cells by hash; return the scene and the cells' corners."""
    seed = f"{style} {members[0].image_id}"
    corners = hash_order(grid_corners(), lambda cell: f"{seed} {cell}")[: len(members)]
    return draw_scene([one.picture for one in members], corners, GRID, GRID), corners
