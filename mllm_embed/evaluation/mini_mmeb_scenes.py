"""Tasks of `mini-mmeb` on scenes of several things: find what is named, and say what stands on one side."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import PIL.Image

from mllm_embed.evaluation.data_folder import DataFolder, Row
from mllm_embed.evaluation.eval_types import EvaluationError, Part, Query
from mllm_embed.evaluation.mini_mmeb_emoji import CONCEPTS, Emoji, Styles
from mllm_embed.evaluation.mini_mmeb_pairs import text_target
from mllm_embed.evaluation.mini_mmeb_rows import SIDES, emoji_name, look_text, object_text
from mllm_embed.evaluation.pools import Selection, hash_number, hash_order
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Image, Text

OBJECTS = ("nlvr.parquet", ("image_id", "structured", "image", "split"))
NLVR_SCENES = 500
"""Scenes that are asked about; the data have more, of the same few kinds."""
_BOX_STRIDE = 150
"""Pixels from one box of an NLVR scene to the next."""
_CELL = 64
_SPRITE = 56
"""Greatest side of a sprite in its cell, in pixels."""
_GRID = 3
_LEAST, _MOST = 4, 9
"""Sprites of one scene."""


@dataclass(frozen=True, slots=True)
class _Object:
    """One object of an NLVR scene; objects that look the same are one candidate."""

    shape: str
    colour: str
    size: int
    box: int
    left: int
    top: int

    @property
    def look(self) -> tuple[str, str, int]:
        return (self.shape, self.colour, self.size)

    @property
    def name(self) -> str:
        return object_text(self.colour, self.shape, self.box)


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
        found = _objects(row)
        kinds = {one.look: one for one in reversed(found)}  # the first object of each look
        asked = _unmistakable(row, found)
        if asked is None or len(kinds) < 2:
            continue
        item = EmbedInput((Image(row["image"]), Text(asked.name)), get_task("grounding").query)
        own = tuple(range(len(crops), len(crops) + len(kinds)))
        queries.append(Query(item, (own[list(kinds).index(asked.look)],), selection.slices(row["split"]), own))
        scene = PIL.Image.open(io.BytesIO(row["image"])).convert("RGB")
        crops += [_crop(scene, (one.left, one.top), one.size, one.size) for one in kinds.values()]
    return Part("all", tuple(queries), tuple(crops), shared=0)


def sprites_in_scenes(styles: Styles, selection: Selection) -> Part:
    """A scene of 4 to 9 held-out sprites and the name of one ask for its crop, among the crops of the scene."""
    queries: list[Query] = []
    crops: list[EmbedInput] = []
    for style, sprites in _held_out(styles, selection):
        for members in _groups(style, sprites, selection):
            scene, corners = _grid_scene(style, members)
            own = tuple(range(len(crops), len(crops) + len(members)))
            crops += [_crop(scene, corner, _CELL, _CELL) for corner in corners]
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
            scene = Image(_scene([left, right], [(0, 0), (_CELL, 0)], (2 * _CELL, _CELL)))
            for side, one in ((SIDES[0], left), (SIDES[-1], right)):
                item = EmbedInput((scene,), look_text(side))
                slices = (*selection.slices(one.split), side, style)
                truth = (places[emoji_name(one.concept)],)
                queries.append(Query(item, truth, slices, instance=f"{left.image_id} {right.image_id}"))
    return Part("all", tuple(queries), tuple(text_target(name) for name in names))


def _objects(row: Row) -> list[_Object]:
    found = []
    try:
        for box, members in enumerate(json.loads(row["structured"])):
            for one in members:
                left, top, size = (int(one[key]) for key in ("x_loc", "y_loc", "size"))
                found.append(_Object(one["type"], one["color"], size, box, left + box * _BOX_STRIDE, top))
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"the objects of scene {row['image_id']} cannot be read: {error!r}") from None
    return found


def _unmistakable(row: Row, objects: Sequence[_Object]) -> _Object | None:
    """Return the first object in hash order whose name fits no other, None where every name fits several."""
    names = [one.name for one in objects]
    clear = [one for one in objects if names.count(one.name) == 1]
    return hash_order(clear, lambda one: f"{row['image_id']} {one.name}")[0] if clear else None


def _crop(scene: PIL.Image.Image, corner: tuple[int, int], width: int, height: int) -> EmbedInput:
    left, top = corner
    part = scene.crop((left, top, left + width, top + height))
    return EmbedInput((Image(part),), get_task("grounding").target)


def _held_out(styles: Styles, selection: Selection) -> Iterator[tuple[str, list[Emoji]]]:
    """Held-out sprites of different names by style, in hash order."""
    for style, emoji in styles.items():
        held_out = hash_order((one for one in emoji if selection.is_held_out(one.split)), lambda one: one.image_id)
        limit = None if selection.pool_limit is None else max(selection.pool_limit, _MOST)  # enough for one scene
        yield style, list({emoji_name(one.concept): one for one in held_out}.values())[:limit]


def _groups(style: str, sprites: Sequence[Emoji], selection: Selection) -> Iterator[list[Emoji]]:
    """Cut the sprites into scenes of 4 to 9, sizes by hash; a rest that is too small is left out."""
    start = number = 0
    while len(sprites) - start >= _LEAST:
        size = _LEAST + hash_number(f"{selection.prefix} {style} {number}") % (_MOST - _LEAST + 1)
        yield list(sprites[start : start + size])
        start, number = start + size, number + 1


def _grid_scene(style: str, members: Sequence[Emoji]) -> tuple[PIL.Image.Image, list[tuple[int, int]]]:
    """Put sprites into different cells of a grid, cells by hash; return the scene and the cells' corners."""
    cells = [(column * _CELL, row * _CELL) for row in range(_GRID) for column in range(_GRID)]
    seed = f"{style} {members[0].image_id}"
    corners = hash_order(cells, lambda cell: f"{seed} {cell}")[: len(members)]
    return _scene(members, corners, (_GRID * _CELL, _GRID * _CELL)), corners


def _scene(members: Sequence[Emoji], corners: Sequence[tuple[int, int]], size: tuple[int, int]) -> PIL.Image.Image:
    scene = PIL.Image.new("RGB", size, "white")
    for one, (left, top) in zip(members, corners, strict=True):
        sprite = PIL.Image.open(io.BytesIO(one.picture)).convert("RGBA")
        sprite.thumbnail((_SPRITE, _SPRITE), PIL.Image.Resampling.LANCZOS)
        scene.paste(sprite, (left + (_CELL - sprite.width) // 2, top + (_CELL - sprite.height) // 2), sprite)
    return scene
