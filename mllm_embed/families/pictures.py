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

    @property
    def beside(self) -> int:
        """Visual tokens of a picture that stand beside the prompt and not in it, for cross attention to look at."""
        return 0

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


def nearest_grid(width: int, height: int, *, side: int, fewest: int, most: int) -> tuple[int, int]:
    """Return the grid of square tiles whose aspect is nearest to a picture's, as InternVL chooses it.

    Args:
        width: of the picture, in pixels.
        height: likewise.
        side: pixels along one side of a tile.
        fewest: tiles of the smallest grid.
        most: tiles of the largest one.

    Returns:
        columns and rows; of several with one aspect the largest of which the picture fills half.
    """
    sides = range(1, most + 1)
    grids = [(columns, rows) for columns in sides for rows in sides if fewest <= columns * rows <= most]
    best, nearest = (1, 1), math.inf
    for columns, rows in sorted(grids, key=math.prod):
        difference = abs(width / height - columns / rows)
        filled = width * height > 0.5 * side**2 * columns * rows
        if difference < nearest or (difference == nearest and filled):
            best, nearest = (columns, rows), difference
    return best
