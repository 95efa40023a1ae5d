"""InternVL in transformers' own format (2.5 and 3, `-hf`): square tiles and an overview, pixel shuffle."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mllm_embed.families.base import CHAT, PLAIN, Family, by_name
from mllm_embed.families.pictures import PictureRule, Runs, Size, nearest_grid


@dataclass(frozen=True, slots=True)
class Tiles(PictureRule):
    """InternVL: the grid of square tiles nearest to the picture's aspect, and an overview if there are several.

    Attributes:
        factor: pixels along one side of a visual token.
        side: pixels along one side of a tile.
        min_tiles: fewest tiles of a grid.
        max_tiles: most tiles of a grid; 1 turns tiling off.
        before: control token before the visual tokens.
        after: control token behind them.
    """

    factor: int
    side: int
    min_tiles: int
    max_tiles: int
    before: str
    after: str

    @property
    def limits(self) -> tuple[int, int]:
        """The area of a tile, and of the largest grid."""
        return self.side**2, self.max_tiles * self.side**2

    def expand(self, sizes: Sequence[Size]) -> list[Runs]:
        """Return the visual tokens of each picture between their two marks."""
        per_tile = (self.side // self.factor) ** 2
        return [((self.before, 1), (None, per_tile * self._tiles(*size)), (self.after, 1)) for size in sizes]

    def _tiles(self, width: int, height: int) -> int:
        if self.max_tiles == 1:
            return 1
        grid = nearest_grid(width, height, side=self.side, fewest=self.min_tiles, most=self.max_tiles)
        count = math.prod(grid)
        return count + 1 if count > 1 else 1


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> Tiles:
    patch = config["vision_config"].get("patch_size", 14)
    patch = int(patch[0] if isinstance(patch, (list, tuple)) else patch)
    tiled = bool(processor.get("crop_to_patches", True))
    return Tiles(
        factor=round(patch / float(config.get("downsample_ratio", 0.5))),
        side=int(processor["size"]["height"]),
        min_tiles=int(processor.get("min_patches", 1)),
        max_tiles=int(processor.get("max_patches", 12)) if tiled else 1,
        before="<img>",
        after="</img>",
    )


FAMILY = Family(
    name="internvl",
    image_slot=("<IMG_CONTEXT>",),
    image_token="<IMG_CONTEXT>",
    templates=by_name(CHAT, PLAIN),
    default_template="plain",
    read_pictures=_read,
    tower_targets=("q_proj", "k_proj", "v_proj", "projection_layer", "fc1", "fc2"),
)
