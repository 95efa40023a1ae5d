"""Toy clips drawn by code: people who walk, wave, fall …, each with a caption, the name of what is done, and an edit.

The moving counterpart of `toy_shapes`, for training, tests and demos without any data:

    clip = clips(1, seed=0)[0]
    clip.frames(), clip.caption, clip.person.action, clip.edit.sentence

A person is a skeleton of fifteen joints in space, posed by key frames and seen from one of four sides, so that an
action looks from each side as it would.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
import PIL.ImageDraw

from mllm_embed.errors import InvalidInput
from mllm_embed.toy_poses import ACTIONS, pose_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Point = NDArray[np.float64]


FRAMES = 6
"""Pictures of a clip."""
SIDE = 64
"""Width and height of a frame in pixels."""
_MARGIN = 6
"""Pixels below the feet."""
_LINE = (25, 25, 25)
"""Of eyes and outlines."""

VIEWS: dict[str, float] = {"facing the viewer": 0, "facing right": 90, "facing away": 180, "facing left": 270}
"""Turns about the vertical axis, in degrees."""
SKINS = {"light": (250, 215, 180), "olive": (214, 165, 110), "brown": (150, 95, 60), "dark": (90, 58, 40)}
HAIRS = {
    "black": (30, 28, 30),
    "brown": (105, 65, 35),
    "blonde": (235, 200, 100),
    "red": (200, 80, 30),
    "white": (235, 235, 235),
    "pink": (245, 130, 190),
    "green": (70, 150, 80),
}
CLOTHES = {
    "red": (205, 45, 45),
    "orange": (240, 140, 40),
    "yellow": (240, 210, 60),
    "green": (55, 140, 70),
    "teal": (40, 150, 160),
    "blue": (50, 90, 205),
    "purple": (130, 70, 170),
    "brown": (120, 80, 50),
    "grey": (135, 135, 140),
    "black": (45, 45, 50),
}
"""Colours of skin, hair, and of tops and trousers."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who is seen and what they do.

    Attributes:
        skin, hair, top, trousers, action, view: names, see `SKINS`, `HAIRS`, `CLOTHES`, `ACTIONS`, `VIEWS`.
    """

    skin: str
    hair: str
    top: str
    trousers: str
    action: str
    view: str


@dataclass(frozen=True, slots=True)
class Look:
    """How a person is drawn, of which captions say nothing.

    Attributes:
        scale: of the whole figure.
        head: width of the head in pixels, unscaled.
        bulk: of body and limbs.
        outlined: whether dark lines surround all parts.
        smooth: whether edges are smooth, or made of whole pixels.
        background: red, green and blue behind the person.
        reach: length of the arms, where 1 is the plain one.
        vigour: of what the limbs do, see `pose_at`.
        left_handed: whether right and left are exchanged in what is done.
        begins, ends: the part of the action that is seen, from 0 to 1.
    """

    scale: float = 1.0
    head: float = 18.0
    bulk: float = 1.0
    outlined: bool = False
    smooth: bool = True
    background: tuple[int, int, int] = (255, 255, 255)
    reach: float = 1.0
    vigour: float = 1.0
    left_handed: bool = False
    begins: float = 0.0
    ends: float = 1.0

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Look:
        """Draw a look; half are on white."""
        background = (255, 255, 255) if rng.random() < 0.5 else tuple(int(one) for one in rng.integers(120, 256, 3))
        return cls(
            scale=float(rng.uniform(0.75, 1.05)),
            head=float(rng.uniform(14, 20)),
            bulk=float(rng.uniform(0.8, 1.25)),
            outlined=bool(rng.random() < 0.5),
            smooth=bool(rng.random() < 0.5),
            background=(background[0], background[1], background[2]),
            reach=float(rng.uniform(0.9, 1.5)),
            vigour=float(rng.uniform(0.8, 1.2)),
            left_handed=bool(rng.random() < 0.3),
            begins=float(rng.uniform(0, 0.2)),
            ends=float(rng.uniform(0.75, 1)),
        )


PLAIN = Look()
"""The look without variation."""


@dataclass(frozen=True, slots=True)
class ClipEdit:
    """The same person with one thing changed, and the sentence that asks for it."""

    sentence: str
    person: Person


@dataclass(frozen=True, slots=True)
class ToyClip:
    """A clip of one person, and how it is drawn."""

    person: Person
    edit: ClipEdit
    look: Look

    @property
    def caption(self) -> str:
        """What is seen: who, and what they do."""
        return describe(self.person)

    def frames(self) -> tuple[PIL.Image.Image, ...]:
        """Draw the clip, see `draw`."""
        return draw(self.person, self.look)


def clips(count: int, seed: int) -> list[ToyClip]:
    """Make clips, no two of the same person doing the same; equal arguments give equal clips, fewer the first of more.

    Raises:
        InvalidInput: there are not so many.
    """
    choices = (SKINS, HAIRS, CLOTHES, CLOTHES, ACTIONS, VIEWS)
    possible = int(np.prod([len(names) for names in choices]))
    if count > possible:
        raise InvalidInput(f"there are {possible} different clips, but {count} are asked for")
    rng = np.random.default_rng(seed)
    found: dict[Person, ToyClip] = {}
    while len(found) < count:
        person = Person(*(_pick(rng, names) for names in choices))
        found.setdefault(person, ToyClip(person, _edit(rng, person), Look.drawn(rng)))
    return list(found.values())


def describe(person: Person) -> str:
    """Return the caption."""
    who = f"a person with {person.skin} skin and {person.hair} hair"
    return f"{who}, wearing a {person.top} top and {person.trousers} trousers, {person.action}, {person.view}"


def draw(person: Person, look: Look = PLAIN, *, count: int = FRAMES) -> tuple[PIL.Image.Image, ...]:
    """Draw `count` frames, RGB, `SIDE` x `SIDE` pixels, over the part of the action that the look shows."""
    times = np.linspace(look.begins, look.ends, count)
    return tuple(
        _frame(person, look, pose_at(person.action, time, vigour=look.vigour, left_handed=look.left_handed))
        for time in times
    )


def _pick(rng: np.random.Generator, names: Mapping[str, object]) -> str:
    return list(names)[int(rng.integers(len(names)))]


def _edit(rng: np.random.Generator, person: Person) -> ClipEdit:
    """Change the hair, the skin, the top or the trousers."""
    kind = ("hair", "skin", "top", "trousers")[int(rng.integers(4))]
    names = {"hair": HAIRS, "skin": SKINS}.get(kind, CLOTHES)
    new = _pick(rng, {name: None for name in names if name != getattr(person, kind)})
    words = {"hair": f"with {new} hair", "skin": f"with {new} skin", "top": f"wearing a {new} top"}
    return ClipEdit(f"the same, {words.get(kind, f'wearing {new} trousers')}", replace(person, **{kind: new}))


@dataclass(frozen=True, slots=True)
class _Part:
    """A rounded stroke from one point to another; x to the person's left, y up, z to where the person looks."""

    start: Point
    end: Point
    width: float
    color: tuple[int, int, int]


def _frame(person: Person, look: Look, pose: dict[str, Point]) -> PIL.Image.Image:
    parts = list(_body(person, look, pose))
    chest = parts[0].end  # the middle of the picture, so that who lies is not cut off
    ground = min(float(end[1]) for part in parts for end in (part.start, part.end)) - pose["body"][1]
    turn = np.deg2rad(VIEWS[person.view])
    side, depth = np.array([np.cos(turn), 0, np.sin(turn)]), np.array([-np.sin(turn), 0, np.cos(turn)])
    fine = 2 if look.smooth else 1
    unit = fine * look.scale
    image = PIL.Image.new("RGB", (fine * SIDE, fine * SIDE), look.background)
    pen = PIL.ImageDraw.Draw(image)
    for part in sorted(parts, key=lambda part: float((part.start + part.end) @ depth)):
        ends = [
            (
                fine * SIDE / 2 + unit * float((point - chest) @ side),
                fine * (SIDE - _MARGIN) - unit * float(point[1] - ground),
            )
            for point in (part.start, part.end)
        ]
        if look.outlined:
            _stroke(pen, ends, unit * part.width + 2 * fine, _LINE)
        _stroke(pen, ends, unit * part.width, part.color)
    return image.reduce(fine)


def _stroke(
    pen: PIL.ImageDraw.ImageDraw, ends: list[tuple[float, float]], width: float, color: tuple[int, int, int]
) -> None:
    pen.line(ends, fill=color, width=round(width))
    radius = width / 2
    for x, y in ends:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _body(person: Person, look: Look, pose: dict[str, Point]) -> Iterator[_Part]:
    """Build the figure about its hips, which lie at the origin."""
    skin, hair, top, trousers = SKINS[person.skin], HAIRS[person.hair], CLOTHES[person.top], CLOTHES[person.trousers]
    pitch = np.deg2rad(pose["body"][0])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])

    def upper(x: float, y: float, z: float) -> Point:
        return np.asarray(tilt @ np.array([x, y, z]))

    neck, head, bulk, arm = 15.0, look.head, look.bulk, 7 * look.reach
    middle = neck + head / 2
    yield _Part(upper(0, 3, 0), upper(0, 12, 0), 13 * bulk, top)
    yield _Part(upper(0, 0, 0), upper(0, 0, 0), 12 * bulk, trousers)
    yield _Part(upper(0, middle, 0), upper(0, middle, 0), head, skin)
    yield _Part(upper(0, middle + head / 6, -head / 6), upper(0, middle - head / 9, -head / 6), head, hair)
    yield _Part(upper(0, middle + 0.28 * head, 0.5), upper(0, middle + 0.28 * head, 0.5), 0.83 * head, hair)
    for x in (-3.5, 3.5):
        yield _Part(upper(x, middle - 1, head / 2), upper(x, middle - 2, head / 2), 2.5, _LINE)
    for name, x in (("right", -1), ("left", 1)):
        shoulder, elbow, hand = (tilt @ joint for joint in _limb(pose[f"{name} arm"], (7.5 * x, 13, 0), arm, bends=1))
        yield _Part(shoulder, elbow, 5 * bulk, top)
        yield _Part(elbow, hand, 4.5 * bulk, skin)
        hip, knee, foot = _limb(pose[f"{name} leg"], (3.5 * x, -2, 0), 8, bends=-1)
        yield _Part(hip, knee, 6 * bulk, trousers)
        yield _Part(knee, foot, 5.5 * bulk, trousers)


def _limb(angles: Point, root: tuple[float, float, float], length: float, *, bends: int) -> tuple[Point, Point, Point]:
    """Return root, middle and end of a limb; `bends` is 1 if its joint bends forward, -1 if backward."""
    swing, spread, bend = np.deg2rad(angles)
    side = np.sign(root[0])
    start = np.asarray(root)

    def reach(forward: float) -> Point:
        drop = np.array([np.sin(spread) * side, -np.cos(spread) * np.cos(forward), np.cos(spread) * np.sin(forward)])
        return length * drop

    middle = start + reach(swing)
    return start, middle, middle + reach(swing + bends * bend)


__all__ = [
    "ACTIONS",
    "CLOTHES",
    "FRAMES",
    "HAIRS",
    "PLAIN",
    "SIDE",
    "SKINS",
    "VIEWS",
    "ClipEdit",
    "Look",
    "Person",
    "ToyClip",
    "clips",
    "describe",
    "draw",
]
