"""What a family's image processor makes of a picture: how large it becomes, and which tokens stand for it.

Everything here is arithmetic on sizes, so that an input can be counted, and refused, before any engine sees it. Each
rule counts as transformers' processor of the same family does; a test compares them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

Size = tuple[int, int]
"""Width and height in pixels."""
Runs = tuple[tuple[str | None, int], ...]
"""What stands for one picture in the model's sequence: pieces and how often each is repeated. None is the family's
image token, a control token is honoured, anything else is tokenised as text."""


class PictureRule(ABC):
    """How one model reads pictures.

    Attributes:
        factor: pixels along one side of a visual token.
    """

    factor: int

    MAX_ASPECT: ClassVar[int] = 200
    """The longer side of a picture may be at most this multiple of the shorter one (the limit of Qwen's processors)."""

    @property
    @abstractmethod
    def limits(self) -> tuple[int, int]:
        """Smallest and largest area in pixels after resizing."""

    @abstractmethod
    def expand(self, sizes: Sequence[Size]) -> list[Runs]:
        """Return what stands for each picture of one prompt, in order."""

    def limited(self, min_pixels: int, max_pixels: int) -> PictureRule:
        """Return this rule with other limits.

        Raises:
            ValueError: the family's pictures have a fixed size, and these are not its limits.
        """
        if (min_pixels, max_pixels) != self.limits:
            raise ValueError(
                f"its processor has fixed sizes: min_pixels and max_pixels must be {self.limits[0]} and "
                f"{self.limits[1]}, but are {min_pixels} and {max_pixels}"
            )
        return self

    def options(self) -> dict[str, Any]:
        """Return what the image processor must be told besides its own configuration."""
        return {}

    def visual_tokens(self, width: int, height: int) -> int:
        """Return how many tokens stand for a picture of this size, alone in its prompt."""
        return sum(count for _, count in self.expand([(width, height)])[0])


@dataclass(frozen=True, slots=True)
class PixelRule(PictureRule):
    """Dynamic resolution of the Qwen-VL image processors (`smart_resize`): one token per square of `factor` pixels.

    Attributes:
        factor: patch size x merge size; sides are multiples of it.
        min_pixels: smallest area after resizing.
        max_pixels: largest area after resizing.
    """

    factor: int
    min_pixels: int
    max_pixels: int

    @classmethod
    def read(cls, processor: Mapping[str, Any], _config: Mapping[str, Any]) -> Self:
        """Read the rule from the image processor's settings.

        Raises:
            KeyError: a setting is absent.
            TypeError: a setting is not a number.
            ValueError: likewise.
        """
        size = processor.get("size") or {}
        return cls(
            int(processor["patch_size"]) * int(processor["merge_size"]),
            int(size.get("shortest_edge") or processor["min_pixels"]),
            int(size.get("longest_edge") or processor["max_pixels"]),
        )

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest area in pixels after resizing."""
        return self.min_pixels, self.max_pixels

    def limited(self, min_pixels: int, max_pixels: int) -> PixelRule:
        """Return this rule with other limits: the processor takes any."""
        return replace(self, min_pixels=min_pixels, max_pixels=max_pixels)

    def options(self) -> dict[str, Any]:
        """Return the limits as the image processor takes them."""
        return {"size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}}

    def expand(self, sizes: Sequence[Size]) -> list[Runs]:
        """Return the visual tokens of each picture."""
        grids = (self.size(*size) for size in sizes)
        return [((None, (w // self.factor) * (h // self.factor)),) for w, h in grids]

    def size(self, width: int, height: int) -> Size:
        """Return (width, height) after resizing, both multiples of `factor`."""
        w, h = (round(side / self.factor) * self.factor for side in (width, height))  # 0 for a sliver: enlarged below
        if w * h > self.max_pixels:
            scale = math.sqrt(width * height / self.max_pixels)
            w, h = (max(self.factor, self._floor(side / scale)) for side in (width, height))
        elif w * h < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (width * height))
            w, h = (math.ceil(side * scale / self.factor) * self.factor for side in (width, height))
        return w, h

    def _floor(self, side: float) -> int:
        return math.floor(side / self.factor) * self.factor


@dataclass(frozen=True, slots=True)
class FixedSize(PictureRule):
    """Every picture becomes one square of the same size.

    Attributes:
        factor: pixels along one side of a visual token.
        side: pixels along one side of the square.
        before: control tokens before the visual tokens.
        after: control tokens behind them.
    """

    factor: int
    side: int
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def limits(self) -> tuple[int, int]:
        """The area of the square, twice."""
        return self.side**2, self.side**2

    def expand(self, sizes: Sequence[Size]) -> list[Runs]:
        """Return as many visual tokens for each picture."""
        runs = (*((t, 1) for t in self.before), (None, (self.side // self.factor) ** 2), *((t, 1) for t in self.after))
        return [runs] * len(sizes)


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
        aspect, area = width / height, width * height
        best, nearest = (1, 1), math.inf
        for columns, rows in self._grids():
            difference = abs(aspect - columns / rows)
            wide_enough = area > 0.5 * self.side**2 * columns * rows
            if difference < nearest or (difference == nearest and wide_enough):
                best, nearest = (columns, rows), difference
        count = best[0] * best[1]
        return count + 1 if count > 1 else 1

    def _grids(self) -> list[tuple[int, int]]:
        sides = range(1, self.max_tiles + 1)
        grids = [(w, h) for w in sides for h in sides if self.min_tiles <= w * h <= self.max_tiles]
        return sorted(grids, key=lambda grid: grid[0] * grid[1])


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
