"""Augmentation for small data: pictures with another background, place, size, colour or style; texts as people type."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps

from mllm_embed.types import Image
from mllm_embed_training.ink import WHITE, Pen, inked

ALIKE = 5
"""Pictures that are changed alike hide nothing from each other, so they are changed so many times as often."""
_KINDS = ("a picture", "an image", "a drawing", "picture", "image")


@dataclass(frozen=True, slots=True)
class Pictures:
    """Decodes the pictures of training rows.

    Attributes:
        augment: share of the pictures that are augmented.
        ink: share of the sprites that are drawn in ink. What is neither is seen as it will be served.
    """

    augment: float
    ink: float = 0

    def __call__(self, row: Mapping[str, Any], rng: random.Random) -> Image:
        """Return the picture of a row, augmented, in ink or plain."""
        pen = Pen.drawn(rng) if rng.random() < self.ink else None
        return Image(decode(row["image"], rng if rng.random() < self.augment else None, pen))

    def alike(self, rows: Sequence[Mapping[str, Any]], rng: random.Random) -> list[Image]:
        """Return the pictures of rows that differ in their colours, all of them plain or changed in one way."""
        pen = Pen.drawn(rng, keep_colours=True) if rng.random() < self.ink else None
        if rng.random() >= ALIKE * self.augment:
            return [Image(decode(row["image"], pen=pen)) for row in rows]
        seed = rng.random()
        return [Image(decode(row["image"], random.Random(seed), pen, keep_colours=True)) for row in rows]


@dataclass(frozen=True, slots=True)
class Texts:
    """Writes the words for a picture of a training row.

    Attributes:
        augment: share of the texts that are in capitals, mistyped, in another order or introduced by an article; the
            rest stays as it is.
    """

    augment: float

    def __call__(self, text: str, rng: random.Random) -> str:
        """Return a text, augmented or plain; at a share of 0 nothing is drawn."""
        if not self.augment or rng.random() >= self.augment:
            return text
        return rng.choice((_capitals, _mistyped, _reordered, _introduced))(text, rng)


def _capitals(text: str, rng: random.Random) -> str:
    return text.upper() if rng.random() < 0.7 else text.title()


def _mistyped(text: str, rng: random.Random) -> str:
    """Swap, leave out or double one letter of every third word or so."""
    words = text.split(" ")
    for place in rng.sample(range(len(words)), -(-len(words) // 3)):
        word = words[place]
        if len(word) > 3:
            at = rng.randrange(1, len(word) - 1)
            slip = rng.choice((word[at + 1] + word[at], word[at + 1], word[at] * 2 + word[at + 1]))
            words[place] = word[:at] + slip + word[at + 2 :]
    return " ".join(words)


def _reordered(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join(rng.sample(words, len(words)))


def _introduced(text: str, rng: random.Random) -> str:
    """Write `an umbrella` for `umbrella`, as people do who ask for one."""
    article = "an" if text[:1].lower() in tuple("aeiou") else "a"
    return f"{rng.choice((article, article, 'the', f'{rng.choice(_KINDS)} of {article}'))} {text}"


def decode(
    data: bytes, rng: random.Random | None = None, pen: Pen | None = None, *, keep_colours: bool = False
) -> PIL.Image.Image:
    """Decode a training picture to RGB; with `rng`, augment it.

    Args:
        data: encoded picture; sprites carry alpha.
        rng: source of randomness; None decodes plainly (alpha on white, as serving does).
        pen: draws a sprite in ink first.
        keep_colours: augment without grey pictures.
    """
    image: PIL.Image.Image = PIL.Image.open(io.BytesIO(data))
    is_sprite = image.mode in ("RGBA", "LA", "PA", "P")
    image = image.convert("RGBA")
    if is_sprite and pen is not None:
        image = inked(image, pen)
    if rng is None:
        return _on_background(image, WHITE)
    image = _zoom(image, rng)
    background = WHITE if not is_sprite or rng.random() < 0.6 else tuple(rng.randrange(120, 256) for _ in range(3))
    image = _on_background(image, (background[0], background[1], background[2]))
    if not keep_colours and rng.random() < 0.12:
        return PIL.ImageOps.grayscale(image).convert("RGB")
    return _jittered(image, rng)


def _on_background(image: PIL.Image.Image, colour: tuple[int, int, int]) -> PIL.Image.Image:
    canvas = PIL.Image.new("RGBA", image.size, (*colour, 255))
    canvas.alpha_composite(image)
    return canvas.convert("RGB")


def _zoom(image: PIL.Image.Image, rng: random.Random) -> PIL.Image.Image:
    """Cut up to 12 % off or add up to 20 % around each side."""
    width, height = image.size
    left, right = (int(width * rng.uniform(-0.2, 0.12)) for _ in range(2))
    top, bottom = (int(height * rng.uniform(-0.2, 0.12)) for _ in range(2))
    return image.crop((left, top, width - right, height - bottom))  # outside is transparent


def _jittered(image: PIL.Image.Image, rng: random.Random) -> PIL.Image.Image:
    """Jitter brightness, contrast and saturation."""
    for enhancer in (PIL.ImageEnhance.Brightness, PIL.ImageEnhance.Contrast, PIL.ImageEnhance.Color):
        if rng.random() < 0.5:
            image = enhancer(image).enhance(rng.uniform(0.7, 1.3))
    return image
