from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from mllm_embed_training.ink import Pen, inked

pytestmark = pytest.mark.fast

PEN = Pen(coloured=True, patches=8, step=50, width=5, blank=0, vivid=1, side=96, margin=0.1, seed=0)
ORANGE, NEARLY_ORANGE, NAVY = (255, 165, 0), (255, 175, 20), (0, 0, 90)


def disc(left: tuple[int, int, int], right: tuple[int, int, int]) -> PIL.Image.Image:
    """A disc on nothing, of 96 x 96 pixels, whose halves have a colour each."""
    image = PIL.Image.new("RGBA", (96, 96))
    pen = PIL.ImageDraw.Draw(image)
    pen.pieslice((8, 8, 88, 88), 90, 270, fill=left)
    pen.pieslice((8, 8, 88, 88), 270, 90, fill=right)
    return image


def drawn(sprite: PIL.Image.Image, pen: Pen = PEN) -> np.ndarray:
    """(height, width, 4) of 0 to 255."""
    return np.asarray(inked(sprite, pen)).astype(int)


def middle(image: np.ndarray, *, left: float) -> list[int]:
    """Return the colour half way down, so far from the left."""
    return list(map(int, image[image.shape[0] // 2, int(image.shape[1] * left), :3]))


def test_patches_keep_their_colours_and_black_lines_are_around_each() -> None:
    image = drawn(disc(ORANGE, NAVY))
    assert np.abs(np.array(middle(image, left=0.3)) - ORANGE).max() < 12
    assert np.abs(np.array(middle(image, left=0.7)) - NAVY).max() < 12
    row = image[48]
    lines = (row[:, :3].max(axis=1) < 60) & (row[:, 3] > 200)
    starts = np.flatnonzero(np.diff(np.concatenate([[0], lines.astype(int)])) == 1)
    assert len(starts) == 3, "rim, middle, rim"
    assert abs(starts[1] - 48) <= 3


def test_between_colours_that_are_alike_there_is_no_line() -> None:
    assert max(middle(drawn(disc(ORANGE, NEARLY_ORANGE)), left=0.5)) > 200
    assert max(middle(drawn(disc(ORANGE, NEARLY_ORANGE), replace(PEN, step=10)), left=0.5)) < 60


def test_outside_there_is_nothing_and_no_line_around_the_picture() -> None:
    image = drawn(disc(ORANGE, NAVY), replace(PEN, margin=0.0))
    assert image[[0, -1]][:, [0, -1], 3].max() == 0, "corners"


@pytest.mark.parametrize(("margin", "first"), [(0.0, 0), (0.125, 12)])
def test_a_margin_is_empty_and_the_rim_is_whole(margin: float, first: int) -> None:
    square = PIL.Image.new("RGBA", (96, 96), ORANGE)
    row = drawn(square, replace(PEN, margin=margin))[48]
    dark = np.flatnonzero((row[:, :3].max(axis=1) < 60) & (row[:, 3] > 200))
    left, right = dark[dark < 48], dark[dark >= 48]
    assert first <= left[0] <= first + 3
    assert len(left) >= 2
    assert abs(len(left) - len(right)) <= 1
    assert row[: max(left[0] - 2, 0), 3].max(initial=0) == 0


def test_a_drawing_without_colours_is_white_and_what_is_dark_black() -> None:
    image = drawn(disc(ORANGE, NAVY), replace(PEN, coloured=False))
    assert middle(image, left=0.3) == [255, 255, 255]
    assert middle(image, left=0.7) == [0, 0, 0]


def test_blank_patches_are_white() -> None:
    assert middle(drawn(disc(ORANGE, ORANGE), replace(PEN, blank=1)), left=0.3) == [255, 255, 255]


def test_a_pen_leaves_the_same_patches_blank_each_time() -> None:
    halves = disc(ORANGE, NAVY)
    some = [drawn(halves, replace(PEN, blank=0.5, seed=place / 20)).tolist() for place in range(20)]
    assert some == [drawn(halves, replace(PEN, blank=0.5, seed=place / 20)).tolist() for place in range(20)]
    assert any(image != some[0] for image in some)


def test_colours_are_more_vivid_or_less() -> None:
    dull = (200, 150, 100)
    plain, vivid = (middle(drawn(disc(dull, dull), replace(PEN, vivid=factor)), left=0.3) for factor in (1, 1.4))
    assert max(vivid) - min(vivid) > max(plain) - min(plain) + 20


def test_one_pen_draws_the_same_lines_around_other_colours() -> None:
    pen = Pen.drawn(random.Random(3), keep_colours=True)
    assert drawn(disc(ORANGE, NAVY), pen).tolist() == drawn(disc(ORANGE, NAVY), pen).tolist()
    light, dark = drawn(disc(ORANGE, NAVY), pen), drawn(disc((255, 220, 180), NAVY), pen)
    assert (light[..., 3] == dark[..., 3]).all()
    assert (np.abs(light - dark).max(axis=2) > 20).any()


def test_pens_by_chance_are_of_all_kinds_and_keep_colours_where_told() -> None:
    rng = random.Random(0)
    pens = [Pen.drawn(rng) for _ in range(500)]
    assert 250 < sum(pen.coloured for pen in pens) < 350
    assert len({pen.width for pen in pens}) > 1
    assert any(pen.blank for pen in pens)
    kept = [Pen.drawn(rng, keep_colours=True) for _ in range(200)]
    assert {(pen.coloured, pen.blank, pen.vivid) for pen in kept} == {(True, 0, 1)}


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (96, 96)])
@pytest.mark.parametrize("alpha", [0, 255])
def test_whatever_the_sprite_it_is_drawn(size: tuple[int, int], alpha: int) -> None:
    image = inked(PIL.Image.new("RGBA", size, (10, 200, 30, alpha)), PEN)
    assert image.mode == "RGBA"
    assert max(image.size) == PEN.side
    assert bool(np.asarray(image)[..., 3].any()) == bool(alpha)
