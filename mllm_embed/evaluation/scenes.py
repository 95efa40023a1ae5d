"""Scenes of several things, read and drawn alike in training and in evaluation."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import PIL.Image

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.mini_mmeb_rows import Row, object_text

CELL = 64
"""Pixels of a cell in which one sprite stands."""
GRID = 3
"""Cells of a scene's row and of its column."""
LEAST, MOST = 4, 9
"""Sprites of one scene."""
_SPRITE = 56
"""Greatest side of a sprite in its cell, in pixels."""
_BOX_STRIDE = 150
"""Pixels from one box of an NLVR scene to the next."""

Corner = tuple[int, int]
"""Left and top, in pixels."""


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object of an NLVR scene; `box` counts from the left, `left` and `top` are pixels of the whole scene."""

    shape: str
    colour: str
    size: int
    box: int
    left: int
    top: int

    @property
    def look(self) -> tuple[str, str, int]:
        """What objects share that cannot be told apart in a crop."""
        return (self.shape, self.colour, self.size)

    @property
    def name(self) -> str:
        """What the object is called: `the yellow circle in the left box`."""
        return object_text(self.colour, self.shape, self.box)

    def crop(self, scene: PIL.Image.Image) -> PIL.Image.Image:
        """Cut the object out of its scene."""
        return scene.crop((self.left, self.top, self.left + self.size, self.top + self.size))


def scene_objects(row: Row) -> list[SceneObject]:
    """Read the objects of a row of `nlvr.parquet`.

    Raises:
        EvaluationError: its column `structured` is not the list of boxes that NLVR has.
    """
    found = []
    try:
        for box, members in enumerate(json.loads(row["structured"])):
            for one in members:
                left, top, size = (int(one[key]) for key in ("x_loc", "y_loc", "size"))
                found.append(SceneObject(one["type"], one["color"], size, box, left + box * _BOX_STRIDE, top))
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"the objects of scene {row['image_id']} cannot be read: {error!r}") from None
    return found


def unmistakable(objects: Sequence[SceneObject]) -> list[SceneObject]:
    """Return the objects whose name fits no other."""
    names = [one.name for one in objects]
    return [one for one in objects if names.count(one.name) == 1]


def grid_corners() -> list[Corner]:
    """Return the corners of all cells of a grid scene, row by row."""
    return [(column * CELL, row * CELL) for row in range(GRID) for column in range(GRID)]


def draw_scene(sprites: Sequence[bytes], corners: Sequence[Corner], columns: int, rows: int) -> PIL.Image.Image:
    """Draw sprites (encoded pictures) into the cells at these corners, on white; RGB, `columns` by `rows` cells."""
    scene = PIL.Image.new("RGB", (columns * CELL, rows * CELL), "white")
    for data, (left, top) in zip(sprites, corners, strict=True):
        sprite = PIL.Image.open(io.BytesIO(data)).convert("RGBA")
        sprite.thumbnail((_SPRITE, _SPRITE), PIL.Image.Resampling.LANCZOS)
        scene.paste(sprite, (left + (CELL - sprite.width) // 2, top + (CELL - sprite.height) // 2), sprite)
    return scene


def cut_cell(scene: PIL.Image.Image, corner: Corner) -> PIL.Image.Image:
    """Cut one cell out of a scene of sprites."""
    left, top = corner
    return scene.crop((left, top, left + CELL, top + CELL))
