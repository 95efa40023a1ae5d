"""Toy scenes drawn by code: coloured shapes with captions, boxes, questions and edits, for tests, training and demos.

Everything that one can ask of a picture is known here, and nothing has to be downloaded:

    for scene in scenes(100, seed=0):
        scene.image, scene.caption, scene.objects[0].box, scene.questions[0].answer, scene.edit.sentence
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
import PIL.ImageDraw

from mllm_embed.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 38, 38),
    "orange": (246, 140, 20),
    "yellow": (247, 216, 40),
    "green": (40, 155, 70),
    "blue": (38, 90, 215),
    "purple": (135, 60, 175),
    "pink": (250, 150, 195),
    "black": (20, 20, 20),
}
SIZES: dict[str, float] = {"small": 0.22, "large": 0.42}
"""Radius as a share of a quarter's side."""
POSITIONS: dict[str, tuple[int, int]] = {
    "top left": (0, 0),
    "top right": (1, 0),
    "bottom left": (0, 1),
    "bottom right": (1, 1),
}
"""Column and row of the quarter that an object lies in; a quarter holds at most one."""

_SUPERSAMPLING = 4
_SMALLEST_SIDE = 32


def _polar(radii: Sequence[float], start: float) -> NDArray[np.float64]:
    """Place points evenly around the origin at the given radii; y points down."""
    angles = np.deg2rad(start) + np.arange(len(radii)) * 2 * np.pi / len(radii)
    points: NDArray[np.float64] = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.asarray(radii)[:, None]
    return points


def _heart() -> NDArray[np.float64]:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1) / 17


_CROSS = [(-1, 3), (1, 3), (1, 1), (3, 1), (3, -1), (1, -1), (1, -3), (-1, -3), (-1, -1), (-3, -1), (-3, 1), (-1, 1)]
SHAPES: dict[str, NDArray[np.float64]] = {
    "circle": _polar([1] * 64, 0),
    "square": _polar([1.2] * 4, 45),
    "triangle": _polar([1] * 3, -90),
    "diamond": _polar([1, 0.6] * 2, -90),
    "star": _polar([1, 0.42] * 5, -90),
    "cross": np.asarray(_CROSS) / 3.2,
    "heart": _heart(),
}
"""Outlines, shape [points, 2] (x, y), about the origin with radius 1."""


@dataclass(frozen=True, slots=True)
class ToyObject:
    """One shape in a scene.

    Attributes:
        shape, color, size, position: names, see `SHAPES`, `COLORS`, `SIZES`, `POSITIONS`.
        box: left, top, right, bottom in pixels, right and bottom exclusive.
        offset: where in its quarter it lies, x and y from -1 to 1.
    """

    shape: str
    color: str
    size: str
    position: str
    box: tuple[int, int, int, int]
    offset: tuple[float, float]

    @property
    def name(self) -> str:
        """Color and shape, which together are unique within a scene."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True, slots=True)
class ToyQuestion:
    """A question about a scene and its answer: `yes`, `no` or a number in digits."""

    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class ToyEdit:
    """A scene with one attribute of one object changed, and the sentence that asks for it."""

    sentence: str
    image: PIL.Image.Image
    caption: str
    objects: tuple[ToyObject, ...]


@dataclass(frozen=True, slots=True)
class ToyScene:
    """A picture of one to four shapes, and what is true of it."""

    image: PIL.Image.Image
    caption: str
    objects: tuple[ToyObject, ...]
    questions: tuple[ToyQuestion, ...]
    edit: ToyEdit


def scenes(count: int, seed: int, *, side: int = 128, max_objects: int = 4) -> Iterator[ToyScene]:
    """Draw scenes, no two with the same caption; equal arguments give equal scenes.

    Args:
        count: how many; fewer are the beginning of more.
        seed: of the random choices.
        side: width and height in pixels.
        max_objects: most shapes in a scene, 1 to 4.

    Raises:
        InvalidInput: `side` is too small to tell shapes apart, or `max_objects` is out of range.
    """
    if side < _SMALLEST_SIDE:
        raise InvalidInput(f"side must be at least {_SMALLEST_SIDE} pixels, but is {side}")
    if not 1 <= max_objects <= len(POSITIONS):
        raise InvalidInput(f"max_objects must be between 1 and {len(POSITIONS)}, but is {max_objects}")
    possible = len(SHAPES) * len(COLORS) * len(SIZES) * len(POSITIONS)
    if max_objects == 1 and count > possible:
        raise InvalidInput(f"there are {possible} different scenes of one shape, but {count} are asked for")
    rng = np.random.default_rng(seed)
    seen: set[str] = set()
    while len(seen) < count:
        objects = _random_objects(rng, side, max_objects)
        caption = describe(objects)
        if caption not in seen:
            seen.add(caption)
            questions = tuple(_questions(rng, objects))
            yield ToyScene(draw(objects, side), caption, objects, questions, _edit(rng, objects, side))


def write_scenes(folder: Path, count: int, seed: int, *, side: int = 128) -> Path:
    """Write scenes as PNG files and one JSON line each; see `scenes` for the arguments.

    A line holds `file`, `caption`, `objects`, `questions` and `edit` (with its own `file`, `sentence`, `caption`).

    Returns:
        the JSON-lines file, `captions.jsonl` in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "captions.jsonl"
    with table.open("w", encoding="utf-8") as stream:
        for index, scene in enumerate(scenes(count, seed, side=side)):
            file, edited = f"{index:06d}.png", f"{index:06d}-edited.png"
            scene.image.save(folder / file)
            scene.edit.image.save(folder / edited)
            row = {
                "file": file,
                "caption": scene.caption,
                "objects": [asdict(item) for item in scene.objects],
                "questions": [asdict(question) for question in scene.questions],
                "edit": {"file": edited, "sentence": scene.edit.sentence, "caption": scene.edit.caption},
            }
            stream.write(json.dumps(row) + "\n")
    return table


def describe(objects: Sequence[ToyObject]) -> str:
    """Return the caption: every object with all its attributes, in reading order."""
    return " and ".join(f"a {item.size} {item.name} in the {item.position}" for item in _in_order(objects))


def draw(objects: Sequence[ToyObject], side: int) -> PIL.Image.Image:
    """Draw objects on white; RGB, `side` x `side` pixels, with smooth edges."""
    image = PIL.Image.new("RGB", (side * _SUPERSAMPLING, side * _SUPERSAMPLING), "white")
    pen = PIL.ImageDraw.Draw(image)
    for item in objects:
        outline = _outline(item, side) * _SUPERSAMPLING
        pen.polygon([(float(x), float(y)) for x, y in outline], fill=COLORS[item.color])
    return image.reduce(_SUPERSAMPLING)


def _in_order(objects: Sequence[ToyObject]) -> tuple[ToyObject, ...]:
    return tuple(sorted(objects, key=lambda item: list(POSITIONS).index(item.position)))


def _outline(item: ToyObject, side: int) -> NDArray[np.float64]:
    """Return the outline in pixels, shape [points, 2]."""
    quarter = side / 2
    radius = SIZES[item.size] * quarter
    unit = SHAPES[item.shape]
    play = quarter / 2 - radius - 1
    center = (np.asarray(POSITIONS[item.position]) + 0.5) * quarter + np.asarray(item.offset) * play
    outline: NDArray[np.float64] = center + unit * radius
    return outline


def _placed(item: ToyObject, side: int) -> ToyObject:
    """Return the object with the box that its other attributes give it."""
    outline = _outline(item, side)
    left, top = np.floor(outline.min(axis=0)).astype(int)
    right, bottom = np.ceil(outline.max(axis=0)).astype(int)
    return replace(item, box=(int(left), int(top), int(right), int(bottom)))


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _random_objects(rng: np.random.Generator, side: int, max_objects: int) -> tuple[ToyObject, ...]:
    """Draw attributes; quarters, and pairs of color and shape, are distinct."""
    count = int(rng.integers(1, max_objects + 1))
    places = [list(POSITIONS)[index] for index in rng.permutation(len(POSITIONS))[:count]]
    pairs = [(color, shape) for color in COLORS for shape in SHAPES]
    chosen = [pairs[index] for index in rng.permutation(len(pairs))[:count]]
    objects = []
    for (color, shape), place in zip(chosen, places, strict=True):
        offset = (round(float(rng.uniform(-1, 1)), 3), round(float(rng.uniform(-1, 1)), 3))
        item = ToyObject(shape, color, _pick(rng, list(SIZES)), place, (0, 0, 0, 0), offset)
        objects.append(_placed(item, side))
    return _in_order(objects)


def _questions(rng: np.random.Generator, objects: tuple[ToyObject, ...]) -> Iterator[ToyQuestion]:
    """Ask for one thing that is there, one that is not, two counts, and (of two or more) how two things lie."""
    names = {item.name for item in objects}
    absent = [name for color in COLORS for shape in SHAPES if (name := f"{color} {shape}") not in names]
    yield ToyQuestion(f"Is there {with_article(_pick(rng, sorted(names)))}?", "yes")
    yield ToyQuestion(f"Is there {with_article(_pick(rng, absent))}?", "no")
    yield ToyQuestion("How many shapes are there?", str(len(objects)))
    color = _pick(rng, [item.color for item in objects] + list(COLORS))
    yield ToyQuestion(f"How many {color} shapes are there?", str(sum(item.color == color for item in objects)))
    if len(objects) > 1:
        first, second = (objects[index] for index in rng.permutation(len(objects))[:2])
        (column, row), (other_column, other_row) = POSITIONS[first.position], POSITIONS[second.position]
        if column != other_column:
            relation, holds = _pick_relation(rng, column < other_column, "to the left of", "to the right of")
        else:
            relation, holds = _pick_relation(rng, row < other_row, "above", "below")
        yield ToyQuestion(f"Is the {first.name} {relation} the {second.name}?", "yes" if holds else "no")


def _pick_relation(rng: np.random.Generator, first_holds: bool, first: str, second: str) -> tuple[str, bool]:
    return (first, first_holds) if rng.integers(2) else (second, not first_holds)


def _edit(rng: np.random.Generator, objects: tuple[ToyObject, ...], side: int) -> ToyEdit:
    """Change the color, shape, size or position of one object."""
    index = int(rng.integers(len(objects)))
    item = objects[index]
    names = {other.name for other in objects}
    free = [place for place in POSITIONS if place not in {other.position for other in objects}]
    kind = _pick(rng, ["color", "shape", "size"] + (["position"] if free else []))
    if kind == "color":
        changed = replace(item, color=_pick(rng, [color for color in COLORS if f"{color} {item.shape}" not in names]))
        sentence = f"Make the {item.name} {changed.color}."
    elif kind == "shape":
        changed = replace(item, shape=_pick(rng, [shape for shape in SHAPES if f"{item.color} {shape}" not in names]))
        sentence = f"Turn the {item.name} into a {changed.shape}."
    elif kind == "size":
        changed = replace(item, size="small" if item.size == "large" else "large")
        sentence = f"Make the {item.name} {changed.size}."
    else:
        changed = replace(item, position=_pick(rng, free))
        sentence = f"Move the {item.name} to the {changed.position}."
    edited = _in_order([*objects[:index], _placed(changed, side), *objects[index + 1 :]])
    return ToyEdit(sentence, draw(edited, side), describe(edited), edited)


def with_article(name: str) -> str:
    """Put `a` or `an` before a name."""
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


__all__ = [
    "COLORS",
    "POSITIONS",
    "SHAPES",
    "SIZES",
    "ToyEdit",
    "ToyObject",
    "ToyQuestion",
    "ToyScene",
    "describe",
    "draw",
    "scenes",
    "with_article",
    "write_scenes",
]
