"""Pictures that got worse on the way, and pictures with a word on them that says something else.

Every function takes and gives an RGB picture and keeps its size; what is random is drawn from SHA-256 and SHAKE-256 of
a seed, so the same seed gives the same picture on every machine.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mllm_embed.evaluation.pools import hash_number

Attack = Callable[[Image.Image, str], Image.Image]
"""Takes a picture and a seed."""

JPEG_QUALITY = 8
BLUR = 1 / 40
"""Standard deviation of the blur, as a share of the shorter side."""
NOISE = 64
"""Greatest change of a value, of 255, by noise."""
HIDDEN_SIDE = 0.5
"""Sides of the hidden rectangle, as shares of the picture's: a quarter of its area."""
ROTATION = 25
"""Degrees, to the left or to the right."""
_GREY = (128, 128, 128)
_BAND = 0.24
"""Height of the band that a word is printed on, as a share of the picture's."""
_SMALLEST_FONT = 10


def jpeg(picture: Image.Image, seed: str) -> Image.Image:
    """Compress strongly, as a JPEG of quality 8."""
    del seed
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY)
    return Image.open(stream).convert("RGB")


def blur(picture: Image.Image, seed: str) -> Image.Image:
    """Blur with a Gaussian of a fortieth of the shorter side."""
    del seed
    return picture.filter(ImageFilter.GaussianBlur(min(picture.size) * BLUR))


def noise(picture: Image.Image, seed: str) -> Image.Image:
    """Add uniform noise of up to a quarter of the range to every value."""
    pixels = np.asarray(picture, dtype=np.int16)
    drawn = np.frombuffer(hashlib.shake_256(seed.encode()).digest(pixels.size), dtype=np.uint8).reshape(pixels.shape)
    change = (drawn.astype(np.int16) - 128) * NOISE // 128
    return Image.fromarray(np.clip(pixels + change, 0, 255).astype(np.uint8))


def occlusion(picture: Image.Image, seed: str) -> Image.Image:
    """Hide a quarter of the picture under a grey rectangle, somewhere."""
    width, height = (max(round(side * HIDDEN_SIDE), 1) for side in picture.size)
    left = hash_number(f"left {seed}") % (picture.width - width + 1)
    top = hash_number(f"top {seed}") % (picture.height - height + 1)
    hidden = picture.copy()
    hidden.paste(_GREY, (left, top, left + width, top + height))
    return hidden


def rotation(picture: Image.Image, seed: str) -> Image.Image:
    """Turn by 25 degrees to the left or to the right; corners become white."""
    angle = ROTATION if hash_number(seed) % 2 else -ROTATION
    return picture.rotate(angle, Image.Resampling.BICUBIC, fillcolor="white")


ATTACKS: Mapping[str, Attack] = {
    "JPEG": jpeg,
    "blur": blur,
    "noise": noise,
    "occlusion": occlusion,
    "rotation": rotation,
}
"""Attacks that need no word, by the name that reports call them."""


def printed_word(picture: Image.Image, words: str) -> Image.Image:
    """Print words in black on a white band across the foot (a typographic attack, Goh et al. 2021).

    As large as fits the width; of what does not fit in letters of 10 pixels, the first words.
    """
    band = max(round(picture.height * _BAND), _SMALLEST_FONT + 2)
    printed = picture.copy()
    draw = ImageDraw.Draw(printed)
    font, line = _fitting(words, picture.width - 2, band - 2)
    draw.rectangle((0, picture.height - band, picture.width, picture.height), fill="white")
    draw.text((picture.width / 2, picture.height - band / 2), line, fill="black", font=font, anchor="mm")
    return printed


def _fitting(words: str, width: int, height: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """Return the largest font in which all words fit a box of pixels, else the smallest and the words that fit."""
    first, *others = words.split()
    line, font = first, _font(_SMALLEST_FONT)
    for word in others:
        if font.getlength(f"{line} {word}") > width:
            return font, line.rstrip(":,.")
        line = f"{line} {word}"
    for size in range(_SMALLEST_FONT + 1, height + 1):
        larger = _font(size)
        if larger.getlength(line) > width:
            break
        font = larger
    return font, line


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font that Pillow carries; its builds without FreeType have none of any size."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("printing words on pictures needs a Pillow with FreeType")
    return font
