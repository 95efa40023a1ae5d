"""A region of a picture -> pictures and words that any model reads.

The default needs no weights: the picture with the region outlined, a sentence, and the region close up. A segmentation
model comes in as another `RegionEncoder`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import PIL.Image

from mllm_embed import media
from mllm_embed.errors import InvalidInput, MediaTooLarge
from mllm_embed.types import Image, Region, RunLengths, Text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mllm_embed.media import MediaPolicy

_OUTLINE = np.array((255, 0, 0), dtype=np.uint8)
_POINT_SHARE = 0.25
"""Radius of the disc that a point stands for, as a share of the picture's shorter side."""
_MARGIN = 0.1
"""What the close-up shows around the region on every side, as a share of the region's longer side."""
_LEAST_SIDE = 16
"""Least side of a close-up, in pixels: models see nothing in less."""
_MOST_ASPECT = 50


class RegionEncoder(Protocol):
    """Writes a picture and its region as content, which goes through the same prompt as any other.

    A segmentation model may make a better mask of a point or a box, and hand it to `MarkedCrop`.
    """

    name: str
    """What decides its content: vectors of another one are not taken from a cache."""

    def encode(self, picture: PIL.Image.Image, region: Region, mask: NDArray[np.bool_]) -> Sequence[Text | Image]:
        """Return what stands in the prompt in place of the picture: texts and at most two PIL images.

        Args:
            picture: mode RGB, upright.
            region: as it was given.
            mask: what it covers, shape [height, width], at least one pixel: the box, the mask, or the disc about the
                point.
        """
        ...


class MarkedCrop:
    """The picture with the region outlined, a sentence that says so, and the region close up."""

    name = "marked-crop"

    def encode(self, picture: PIL.Image.Image, region: Region, mask: NDArray[np.bool_]) -> Sequence[Text | Image]:
        """Return two pictures and the sentence between them; see `RegionEncoder`."""
        del region
        box = bounding_box(mask)
        close_up = picture.crop(_grown(box, picture.size))
        return Image(_outlined(picture, mask, box)), Text(" The region in the red outline: "), Image(close_up)


DEFAULT_REGIONS = MarkedCrop()
"""The encoder that needs no weights."""


async def load_mask(region: Region, size: tuple[int, int], policy: MediaPolicy) -> NDArray[np.bool_]:
    """Return the pixels of a picture that a region covers.

    Args:
        region: what is meant.
        size: width and height of the picture.
        policy: what a mask that is a picture may be.

    Returns:
        a mask of shape [height, width], at least one pixel of it true.

    Raises:
        InvalidInput: the region is not inside the picture, the mask has another size or marks nothing.
        InputError: the mask is no picture that can be read.
    """
    drawn = None
    if region.mask is not None and not isinstance(region.mask, RunLengths):
        try:  # one that cannot fit is not decoded
            drawn = await media.load(Image(region.mask), replace(policy, max_pixels=size[0] * size[1]))
        except MediaTooLarge as error:
            raise MediaTooLarge(f"the mask of a region must fit its picture, {size[0]} x {size[1]}: {error}") from None
    return await media.in_decoder(_mask, region, drawn, size)


def _mask(region: Region, drawn: PIL.Image.Image | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size[::-1], dtype=bool)
    if region.point is not None:
        _cover_disc(mask, region.point, size)
    elif region.box is not None:
        _cover_box(mask, region.box, size)
    elif isinstance(region.mask, RunLengths):
        _check_size(region.mask.size[::-1], size)
        mask = _unpacked(region.mask)
    elif drawn is not None:
        _check_size(drawn.size, size)
        mask = np.asarray(drawn.convert("L")) > 127
    if not mask.any():
        raise InvalidInput("the mask of the region is empty: no pixel of it is inside")
    return mask


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what is true in a mask, right and bottom exclusive."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def from_json(value: Any, mask: Callable[[str], bytes | str | Path]) -> Region:
    """Read a region that is written as JSON: an object with one of point, box and mask.

    Args:
        value: parsed JSON; point and box are arrays, a mask is a string or an object with the fields of `RunLengths`.
        mask: turns the string of a mask into its source.

    Raises:
        InvalidInput: anything else.
    """
    if not isinstance(value, dict) or not value.keys() <= {"point", "box", "mask"}:
        raise InvalidInput("a region must be an object with one of point, box and mask")
    point, box, drawn = (_tuple(value.get(name)) for name in ("point", "box", "mask"))
    if isinstance(drawn, dict):
        runs = {key: _tuple(found) for key, found in drawn.items()}
        if runs.keys() != {"size", "counts"} or not all(isinstance(found, tuple) for found in runs.values()):
            raise InvalidInput("a mask that is an object must hold two arrays of integers, size and counts")
        return Region(point, box, RunLengths(**runs))
    if drawn is not None and not isinstance(drawn, str):
        raise InvalidInput("a mask must be a picture, or an object with size and counts")
    return Region(point, box, None if drawn is None else mask(drawn))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _cover_box(mask: NDArray[np.bool_], box: tuple[float, float, float, float], size: tuple[int, int]) -> None:
    """Cover every pixel that a box touches."""
    left, top, right, bottom = box
    if left < 0 or top < 0 or right > size[0] or bottom > size[1]:
        raise InvalidInput(
            f"the box of a region must lie within the picture of {size[0]} x {size[1]} pixels, "
            f"but is {left}, {top}, {right}, {bottom}"
        )
    mask[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)] = True


def _cover_disc(mask: NDArray[np.bool_], point: tuple[float, float], size: tuple[int, int]) -> None:
    """Cover the pixels whose middle is near a point, and the one that it lies in."""
    x, y = point
    if not (0 <= x < size[0] and 0 <= y < size[1]):
        raise InvalidInput(
            f"the point of a region must lie within the picture of {size[0]} x {size[1]} pixels, but is {x}, {y}"
        )
    radius = _POINT_SHARE * min(size)
    left, top = max(0, math.floor(x - radius)), max(0, math.floor(y - radius))
    rows, columns = np.ogrid[top : math.ceil(y + radius), left : math.ceil(x + radius)]
    rows, columns = rows[: size[1] - top], columns[:, : size[0] - left]
    near = (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2
    mask[top : top + near.shape[0], left : left + near.shape[1]] = near
    mask[math.floor(y), math.floor(x)] = True


def _unpacked(runs: RunLengths) -> NDArray[np.bool_]:
    height, width = runs.size
    inside = np.arange(len(runs.counts)) % 2 == 1
    return np.repeat(inside, runs.counts).reshape(width, height).T


def _check_size(mask: tuple[int, int], picture: tuple[int, int]) -> None:
    if mask != picture:
        raise InvalidInput(
            f"the mask of a region must have the size of its picture, {picture[0]} x {picture[1]} pixels, "
            f"but is {mask[0]} x {mask[1]}"
        )


def _outlined(picture: PIL.Image.Image, mask: NDArray[np.bool_], box: tuple[int, int, int, int]) -> PIL.Image.Image:
    """Draw a line around a region, outside of it."""
    width = max(2, min(picture.size) // 50)
    left, top = max(0, box[0] - width), max(0, box[1] - width)
    right, bottom = box[2] + width, box[3] + width
    near = mask[top:bottom, left:right]
    pixels = np.array(picture)
    pixels[top:bottom, left:right][_dilated(near, width) & ~near] = _OUTLINE
    return PIL.Image.fromarray(pixels)


def _dilated(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Grow a mask by a radius to all sides, in steps that double."""
    grown, reached = mask.copy(), 0
    while reached < radius:
        step = min(max(1, reached), radius - reached)
        for view in (grown, grown.T):
            view[step:] |= view[:-step]
            view[:-step] |= view[step:]
        reached += step
    return grown


def _grown(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Give a box a margin, and sides that models can read, as far as the picture reaches."""
    sides = (box[2] - box[0], box[3] - box[1])
    margin = round(_MARGIN * max(sides))
    spans = []
    for start, side, whole in zip(box[:2], sides, size, strict=True):
        wanted = min(whole, max(side + 2 * margin, _LEAST_SIDE, math.ceil(max(sides) / _MOST_ASPECT)))
        begin = min(max(0, start - (wanted - side) // 2), whole - wanted)
        spans.append((begin, begin + wanted))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]
