from __future__ import annotations

import random
from collections import Counter

import pytest

from mllm_embed_training.augment import Texts

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
