"""Searches that one click runs; they only make sense in the built-in gallery."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """What the button says, and the text and the picture (by file name) that it searches for."""

    label: str
    text: str
    file: str | None = None


EXAMPLES = (
    Example("umbrella", "umbrella"),
    Example("cat", "cat"),
    Example("blue triangle", "a blue triangle in the bottom right"),
    Example("bar chart", "bar chart"),
    Example("music", "music"),
    Example("like this horse", "", "horse.png"),
    Example("this shape, but red", "Make the pink square red.", "scene-03.png"),
)
