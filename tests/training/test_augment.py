from __future__ import annotations

import io
import random
from collections import Counter

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from mllm_embed_training.augment import Pictures, Texts, decode

pytestmark = pytest.mark.fast

NAME = "woman technologist medium skin tone"


def written(share: float, times: int = 1000) -> list[str]:
    rng = random.Random(0)
    return [Texts(share)(NAME, rng) for _ in range(times)]


def test_as_many_texts_are_written_otherwise_as_the_share_says() -> None:
    assert 170 < sum(text != NAME for text in written(0.2)) < 230


def test_texts_are_in_capitals_mistyped_in_another_order_or_introduced() -> None:
    kinds = Counter(kind(text) for text in written(1.0))
    assert set(kinds) == {"capitals", "order", "mistyped", "introduced", "as it was"}
    assert kinds.pop("as it was") < 30  # a slip can write the same letter, a shuffle the same order
    assert min(kinds.values()) > 180


@pytest.mark.parametrize(("text", "article"), [("umbrella", "an"), ("Red heart", "a")])
def test_the_article_fits_the_word(text: str, article: str) -> None:
    rng = random.Random(0)
    found = {words[: -len(text) - 1] for words in (Texts(1.0)(text, rng) for _ in range(1000)) if words.endswith(text)}
    assert found >= {article, "the", f"a picture of {article}"}
    assert {words.split()[-1] for words in found if words} == {article, "the"}


def kind(text: str) -> str:
    if text == NAME:
        return "as it was"
    if text.casefold() == NAME:
        return "capitals"
    if text.endswith(f" {NAME}"):
        return "introduced"
    return "order" if sorted(text.split()) == sorted(NAME.split()) else "mistyped"


@pytest.mark.parametrize("text", ["a", "", "ox", "\u732b", "two  spaces"])
def test_whatever_the_text_something_is_written(text: str) -> None:
    rng = random.Random(1)
    assert all(len(Texts(1.0)(text, rng)) >= len(text.strip()) - 1 for _ in range(50))


def test_at_a_share_of_zero_nothing_is_drawn_so_that_older_runs_see_what_they_saw() -> None:
    rng = random.Random(7)
    before = rng.getstate()
    assert Texts(0)(NAME, rng) == NAME
    assert rng.getstate() == before


def sprite(colour: str) -> dict[str, bytes]:
    """A disc of a colour with a white eye, on nothing."""
    image = PIL.Image.new("RGBA", (96, 96))
    pen = PIL.ImageDraw.Draw(image)
    pen.ellipse((16, 16, 80, 80), fill=colour)
    pen.ellipse((40, 40, 56, 56), fill="white")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"image": buffer.getvalue()}


def pixels(image: object) -> np.ndarray:
    assert isinstance(image, PIL.Image.Image)
    return np.asarray(image).astype(int)


def test_pictures_changed_alike_differ_where_they_differed_and_nowhere_else() -> None:
    one, other = sprite("orange"), sprite("saddlebrown")
    seen = set()
    for seed in range(60):
        shown = [picture.source for picture in Pictures(0.2).alike((one, one, other), random.Random(seed))]
        first, again, third = map(pixels, shown)
        assert (first == again).all()
        assert (np.abs(first - third).max(axis=2) > 20).sum() > 500, "what tells them apart is still seen"
        seen.add(first.tobytes())
    assert len(seen) > 50, "a share of 0.2 changes them all, each time in another way"


def test_at_a_share_of_zero_pictures_stay_as_they_are_alike_or_not() -> None:
    row = sprite("orange")
    plain = decode(row["image"]).tobytes()
    shown = [Pictures(0)(row, random.Random(0)), *Pictures(0).alike((row, row), random.Random(0))]
    assert [picture.source.tobytes() for picture in shown if isinstance(picture.source, PIL.Image.Image)] == [plain] * 3


def has_lines(image: object) -> bool:
    return bool((pixels(image).max(axis=2) < 60).sum() > 100)


def test_as_many_sprites_are_drawn_in_ink_as_the_share_says() -> None:
    row, pictures, rng = sprite("orange"), Pictures(0, ink=0.3), random.Random(0)
    assert 70 < sum(has_lines(pictures(row, rng).source) for _ in range(300)) < 110


def test_what_is_no_sprite_is_never_drawn_in_ink() -> None:
    row = sprite("orange")
    buffer = io.BytesIO()
    decode(row["image"]).save(buffer, "PNG")
    photo = {"image": buffer.getvalue()}
    rng = random.Random(0)
    assert not any(has_lines(Pictures(0, ink=1)(photo, rng).source) for _ in range(20))


def test_some_pictures_are_grey_but_none_whose_colours_are_to_be_kept() -> None:
    row = sprite("orange")
    for keep, fewest, most in ((False, 10, 40), (True, 0, 0)):
        shown = [pixels(decode(row["image"], random.Random(seed), keep_colours=keep)) for seed in range(200)]
        assert fewest <= sum((np.ptp(image, axis=2) == 0).all() for image in shown) <= most


@pytest.mark.parametrize("augment", [0, 1])
def test_pictures_changed_alike_are_all_drawn_in_ink_or_none(augment: float) -> None:
    one, other = sprite("orange"), sprite("saddlebrown")
    kinds: Counter[tuple[bool, ...]] = Counter()
    for seed in range(60):
        shown = [picture.source for picture in Pictures(augment, ink=0.5).alike((one, other), random.Random(seed))]
        kinds[tuple(has_lines(picture) for picture in shown)] += 1
        assert (np.abs(pixels(shown[0]) - pixels(shown[1])).max(axis=2) > 20).any(), (
            "what tells them apart is still seen"
        )
    assert set(kinds) == {(True, True), (False, False)}
