"""LLaVA 1.6 (LLaVA-NeXT): an overview and the crops of the picture's best grid (`anyres`), CLIP patches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mllm_embed.families import llava
from mllm_embed.families.base import Template, by_name, plain
from mllm_embed.families.pictures import PictureRule, Runs, Size


@dataclass(frozen=True, slots=True)
class AnyResolution(PictureRule):
    """LLaVA's `anyres`: the picture in its best grid of crops, a newline token behind each row, and an overview.

    Attributes:
        factor: pixels along one side of a visual token.
        side: pixels along one side of a crop.
        grids: the sizes (height, width) that a picture may be fitted into.
        most_crops: crops whose tokens are kept at most; a larger grid is shrunk (LLaVA-OneVision). None keeps all.
        overview_only: several pictures in a prompt are read as overviews alone (LLaVA-OneVision).
    """

    factor: int
    side: int
    grids: tuple[tuple[int, int], ...]
    most_crops: int | None = None
    overview_only: bool = False

    @property
    def limits(self) -> tuple[int, int]:
        """The area of a crop, and of the largest grid."""
        return self.side**2, max(height * width for height, width in self.grids)

    def expand(self, sizes: Sequence[Size]) -> list[Runs]:
        """Return the visual tokens of each picture."""
        per_side = self.side // self.factor
        if self.overview_only and len(sizes) > 1:
            return [((None, per_side**2 + 1),)] * len(sizes)
        return [((None, per_side**2 + self._crops(per_side, width, height)),) for width, height in sizes]

    def _crops(self, per_side: int, width: int, height: int) -> int:
        """Count the tokens of the crops without the padding around the picture, newlines included."""
        grid_height, grid_width = self._grid(width, height)
        rows, columns = per_side * (grid_height // self.side), per_side * (grid_width // self.side)
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        if self.most_crops is not None:
            ratio = math.sqrt(rows * columns / (self.most_crops * per_side**2))
            if ratio > 1.1:
                rows, columns = int(rows // ratio), int(columns // ratio)
        return rows * columns + rows

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """Return the grid that keeps most of the picture's pixels, and wastes least among equals."""

        def merit(grid: tuple[int, int]) -> tuple[int, int]:
            scale = min(grid[1] / width, grid[0] / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, kept - grid[0] * grid[1]

        return max(self.grids, key=merit)


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> AnyResolution:
    llava.check_class_token(config)
    patch, side = int(config["vision_config"]["patch_size"]), int(processor["crop_size"]["height"])
    return AnyResolution(patch, side, read_grids(processor))


def read_grids(processor: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Read the sizes (height, width) that a picture may be fitted into."""
    return tuple((int(height), int(width)) for height, width in processor["image_grid_pinpoints"])


VLM2VEC = Template("vlm2vec", 1, "{images} {instruction} {texts}")
"""VLM2Vec on LLaVA-NeXT: no chat frame, pictures first."""

UNIME = Template("unime", 1, "[INST] {content}\nSummary above {kind} in one word: [/INST]")
"""UniME's prompt; it knows no instruction."""

E5_V = Template(
    "e5-v",
    1,
    "<|start_header_id|>user<|end_header_id|>\n\n{images}\n{texts}\nSummary above {kind} in one word: "
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n \n",
)
"""E5-V's prompt, in the frame of Llama 3."""

FAMILY = replace(
    llava.FAMILY,
    name="llava_next",
    templates=by_name(
        plain("</s>"),
        Template("chat", 1, "[INST] {instruction}\n{content} [/INST]"),
        VLM2VEC,
        UNIME,
        E5_V,
    ),
    read_pictures=_read,
    pixel_inputs=("pixel_values", "image_sizes"),
)
