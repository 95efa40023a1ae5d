"""Sprites drawn again in ink: an outline around every patch of colour, the patches flat, white or black.

Emoji and icons of every source have a look of their own. A model that has only seen shaded ones takes the same thing
in outlines for something else, so some are trained on as a cartoonist or a colouring book would draw them.
"""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageFilter
from numpy.typing import NDArray

WHITE = (255, 255, 255)
BLACK = (0, 0, 0)
_WORK = 160
"""Side in pixels at which a sprite is drawn; it is made smaller afterwards, which smooths its lines."""
_DARK = 0.3
"""Lightness below which a patch of a drawing without colours stays black."""


@dataclass(frozen=True, slots=True)
class Pen:
    """How one sprite is drawn.

    Attributes:
        coloured: patches keep their colours, or are white (dark ones black).
        patches: at most so many colours.
        step: Euclidean distance of two colours, each of 0 to 255, from which there is a line between them.
        width: lines' width in pixels of a side of 160.
        blank: share of a coloured drawing's patches that stay white.
        vivid: factor of the patches' saturation.
        side: the drawing's longer side in pixels.
        margin: empty border, as a share of the side.
        seed: of the choice which patches stay white.
    """

    coloured: bool
    patches: int
    step: float
    width: int
    blank: float
    vivid: float
    side: int
    margin: float
    seed: float

    @classmethod
    def drawn(cls, rng: random.Random, *, keep_colours: bool = False) -> Pen:
        """Return a pen by chance; with `keep_colours`, one that leaves every patch its colour."""
        return cls(
            coloured=keep_colours or rng.random() < 0.6,
            patches=rng.randrange(6, 17),
            step=rng.uniform(35, 90),
            width=rng.choice((3, 3, 5)),
            blank=0 if keep_colours else rng.choice((0, 0, 0.15, 0.3)),
            vivid=1 if keep_colours else rng.uniform(0.8, 1.5),
            side=rng.randrange(64, 113),
            margin=rng.uniform(0, 0.12),
            seed=rng.random(),
        )


def inked(sprite: PIL.Image.Image, pen: Pen) -> PIL.Image.Image:
    """Draw a sprite in ink.

    Args:
        sprite: RGBA; what is transparent stays outside of the drawing.
        pen: how it is drawn; one pen draws pictures alike.

    Returns:
        RGBA, transparent outside of its outline.
    """
    large = _enlarged(sprite, pen)
    inside = np.asarray(large.getchannel("A")) > 127
    even = large.convert("RGB").filter(PIL.ImageFilter.MedianFilter(3))  # no lines around specks and shades
    flat = even.quantize(pen.patches, method=PIL.Image.Quantize.FASTOCTREE)
    palette = np.asarray(flat.getpalette(), dtype=np.float64)[: 3 * pen.patches].reshape(-1, 3)
    patch = np.asarray(flat)

    chance = random.Random(pen.seed)
    fills = np.array([_fill(colour, pen, chance) for colour in palette], dtype=np.uint8)
    drawing = PIL.Image.fromarray(fills[patch])
    lines = PIL.Image.fromarray(np.uint8(255) * _borders(patch, palette, inside, pen.step))
    lines = lines.filter(PIL.ImageFilter.MaxFilter(pen.width))
    drawing.paste(BLACK, mask=lines)
    drawing.putalpha(PIL.Image.fromarray(np.maximum(np.asarray(lines), np.uint8(255) * inside)))
    drawing.thumbnail((pen.side, pen.side), PIL.Image.Resampling.LANCZOS)
    return drawing


def _enlarged(sprite: PIL.Image.Image, pen: Pen) -> PIL.Image.Image:
    """Return a sprite on transparent white in a square of the working size, with its margin and room for its rim."""
    room = int(_WORK * (1 - 2 * pen.margin)) - 2 * pen.width
    scale = room / max(sprite.size)
    large = sprite.resize([max(round(side * scale), 1) for side in sprite.size], PIL.Image.Resampling.BICUBIC)
    canvas = PIL.Image.new("RGBA", (_WORK, _WORK), (*WHITE, 0))
    # pasted through itself, so that soft edges are mixed with white and no dark seam is taken for a patch
    canvas.paste(large, ((_WORK - large.width) // 2, (_WORK - large.height) // 2), large)
    return canvas


def _fill(colour: NDArray[np.float64], pen: Pen, rng: random.Random) -> tuple[int, ...]:
    hue, lightness, saturation = colorsys.rgb_to_hls(*(colour / 255))
    if not pen.coloured:
        return BLACK if lightness < _DARK else WHITE
    if rng.random() < pen.blank:
        return WHITE
    return tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue, lightness, min(saturation * pen.vivid, 1)))


def _borders(
    patch: NDArray[np.uint8], palette: NDArray[np.float64], inside: NDArray[np.bool_], step: float
) -> NDArray[np.bool_]:
    """Mark where two patches meet whose colours differ, and the rim of the sprite.

    Args:
        patch: (side, side) integers, the place of each pixel's colour in the palette.
        palette: (colours, 3) of 0 to 255.
        inside: (side, side) booleans, where the sprite is.
        step: distance of colours from which there is a border.

    Returns:
        (side, side) booleans.
    """
    differ = np.linalg.norm(palette[:, None] - palette[None], axis=-1) > step
    marked = np.zeros_like(inside)
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        both = inside[here] & inside[there]
        marked[here] |= (differ[patch[here], patch[there]] & both) | (inside[here] != inside[there])
    return marked
