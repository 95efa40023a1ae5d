"""Idefics 3: rows of tiles named by their places, then an overview; SigLIP patches, pixel shuffle, Llama 3."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mllm_embed.families.base import Family, Template, by_name, plain
from mllm_embed.families.pictures import PictureRule, Runs, Size


@dataclass(frozen=True, slots=True)
class SplitRows(PictureRule):
    """Idefics 3 and SmolVLM: rows of square tiles, each named by its place, then an overview.

    Attributes:
        factor: pixels along one side of a visual token.
        side: pixels along one side of a tile.
        longest: pixels of the longer side before splitting.
        split: whether pictures are split at all.
    """

    factor: int
    side: int
    longest: int
    split: bool

    MAX_SIDE: ClassVar[int] = 4096
    """The processor's own limit on the longer side."""
    FENCE: ClassVar[str] = "<fake_token_around_image>"

    @property
    def limits(self) -> tuple[int, int]:
        """The area of a tile, and of the largest grid."""
        most = math.ceil(min(self.longest, self.MAX_SIDE) / self.side) if self.split else 1
        return self.side**2, most**2 * self.side**2

    def expand(self, sizes: Sequence[Size]) -> list[Runs]:
        """Return tiles row by row and the overview, fenced."""
        return [self._runs(*self._grid(*size)) for size in sizes]

    def _runs(self, columns: int, rows: int) -> Runs:
        tokens = (self.side // self.factor) ** 2
        runs: list[tuple[str | None, int]] = []
        for row in range(rows):
            for column in range(columns):
                runs += [(self.FENCE, 1), (f"<row_{row + 1}_col_{column + 1}>", 1), (None, tokens)]
            runs.append(("\n" if row + 1 < rows else "\n\n", 1))
        return (*runs, (self.FENCE, 1), ("<global-img>", 1), (None, tokens), (self.FENCE, 1))

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """Return columns and rows; none of either for a picture that is not split."""
        if not self.split:
            return 0, 0
        aspect = width / height
        if width >= height:
            width, height = self.longest, _even(int(self.longest / aspect))
        else:
            width, height = _even(int(self.longest * aspect)), self.longest
        longer = max(width, height)
        if longer > self.MAX_SIDE:
            aspect = width / height
            width, height = (
                (self.MAX_SIDE, int(self.MAX_SIDE / aspect))
                if width >= height
                else (int(self.MAX_SIDE * aspect), self.MAX_SIDE)
            )
        columns, rows = (max(1, math.ceil(side / self.side)) for side in (width, height))
        return (columns, rows) if columns * rows > 1 else (0, 0)


def _even(side: int) -> int:
    return max(1, side + side % 2)


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> SplitRows:
    side = int(processor["max_image_size"]["longest_edge"])
    patch, shuffle = int(config["vision_config"]["patch_size"]), int(config.get("scale_factor", 2))
    split = bool(processor.get("do_image_splitting", True))
    return SplitRows(patch * shuffle, side, int(processor["size"]["longest_edge"]), split)


FAMILY = Family(
    name="idefics3",
    image_slot=("<image>",),
    image_token="<image>",
    templates=by_name(
        plain("<end_of_utterance>"),
        Template("chat", 1, "User:{instruction}\n{content}<end_of_utterance>\nAssistant:"),
    ),
    default_template="plain",
    read_pictures=_read,
    tower="model.vision_model",
    projector="model.connector",
    language_model="model.text_model",
    pixel_inputs=("pixel_values", "pixel_attention_mask"),
    images_by_prompt=True,
)
