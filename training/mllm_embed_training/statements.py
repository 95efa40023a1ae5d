"""True and false statements about scenes of NLVR, made from the list of their objects, in the words that people used.

A person's statement about a scene is one; what is known of a scene makes as many as one likes. A statement is drawn as
often where it is true as where it is false, so that its words alone do not tell.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mllm_embed.evaluation.mini_mmeb_rows import SIDES
from mllm_embed.evaluation.scenes import SceneObject
from mllm_embed.toy_shapes import with_article

Boxes = Sequence[Sequence[SceneObject]]
"""The objects of a scene, by box."""
COLOURS = {"yellow": "Yellow", "black": "Black", "blue": "#0099ff"}
"""Words and how the data spell them."""
SHAPES = ("circle", "square", "triangle")
TRIES = 60
"""Draws until a statement fits."""
_NUMBERS = ("one", "two", "three", "four", "five", "six")


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence, and whether it holds of a scene."""

    sentence: str
    holds: Callable[[Boxes], bool]


class Statements:
    """Draws statements that are as often true as false.

    Args:
        scenes: objects of some hundred scenes, which tell how often a statement is true.
    """

    def __init__(self, scenes: Iterable[Sequence[SceneObject]]) -> None:
        found = [in_boxes(objects) for objects in scenes]
        self._scenes = {kind: [boxes for boxes in found if are_towers(boxes) == kind] for kind in (True, False)}
        self._rates: dict[str, float] = {}

    def draw(self, objects: Sequence[SceneObject], truth: bool, rng: random.Random) -> str | None:
        """Return a statement about a scene that is as true as wanted, or None if none is found."""
        boxes = in_boxes(objects)
        towers = are_towers(boxes)
        kinds = [_exists, _has, _counts, _each, _end if towers else _lies]
        for _ in range(TRIES):
            made = rng.choice(kinds)(_What.drawn(towers, rng), rng)
            if made.holds(boxes) == truth:
                rate = self._rate(made, towers) if truth else 1 - self._rate(made, towers)
                if rng.random() * rate < 1 - rate:
                    return made.sentence
        return None

    def _rate(self, made: Statement, towers: bool) -> float:
        """In how many scenes of the kind a statement is true."""
        if made.sentence not in self._rates:
            truths = [made.holds(boxes) for boxes in self._scenes[towers]]
            self._rates[made.sentence] = (sum(truths) + 1) / (len(truths) + 2)
        return self._rates[made.sentence]


def in_boxes(objects: Sequence[SceneObject]) -> Boxes:
    """Sort the objects of a scene by box, from the left."""
    return [[one for one in objects if one.box == box] for box in range(len(SIDES))]


def are_towers(boxes: Boxes) -> bool:
    """Whether the blocks of every box stand on one another."""
    return all(one.shape == "square" and one.left == box[0].left for box in boxes for one in box)


@dataclass(frozen=True, slots=True)
class _What:
    """A kind of objects, and what a box is called: `yellow circle` or `item` in a box, `yellow block` in a tower."""

    colour: str | None
    shape: str | None
    noun: str
    place: str

    @classmethod
    def drawn(cls, towers: bool, rng: random.Random) -> _What:
        if towers:
            return cls(rng.choice(tuple(COLOURS)), None, "block", "tower")
        shape = rng.choice((*SHAPES, None))
        return cls(rng.choice((*COLOURS, None)), shape, shape or rng.choice(("item", "object")), "box")

    def words(self, count: int) -> str:
        return f"{self.colour} {self._noun(count)}" if self.colour else self._noun(count)

    def one(self) -> str:
        return with_article(self.words(1))

    def among(self, objects: Sequence[SceneObject]) -> int:
        """Count those of the kind."""
        return sum(
            (self.colour is None or one.colour == COLOURS[self.colour]) and self.shape in (None, one.shape)
            for one in objects
        )

    def _noun(self, count: int) -> str:
        return self.noun if count == 1 else f"{self.noun}s"


def _exists(what: _What, rng: random.Random) -> Statement:
    if rng.random() < 0.3:
        return Statement(f"There is no {what.words(1)}.", lambda boxes: not any(map(what.among, boxes)))
    return Statement(f"There is {what.one()}.", lambda boxes: any(map(what.among, boxes)))


def _has(what: _What, rng: random.Random) -> Statement:
    count = rng.randint(1, 4)
    how, enough = _quantity(count, rng)
    having = f"{what.place} with {how} {what.words(count)}."
    if rng.random() < 0.25:
        return Statement(f"There is no {having}", lambda boxes: not any(enough(what.among(box)) for box in boxes))
    return Statement(f"There is a {having}", lambda boxes: any(enough(what.among(box)) for box in boxes))


def _counts(what: _What, rng: random.Random) -> Statement:
    count = rng.randint(1, 6)
    how, enough = _quantity(count, rng)
    sentence = f"There {'is' if count == 1 else 'are'} {how} {what.words(count)}."
    return Statement(sentence, lambda boxes: enough(sum(map(what.among, boxes))))


def _each(what: _What, _rng: random.Random) -> Statement:
    return Statement(f"Each {what.place} has at least one {what.words(1)}.", lambda boxes: all(map(what.among, boxes)))


def _lies(what: _What, rng: random.Random) -> Statement:
    place = rng.randrange(len(SIDES))
    return Statement(f"There is {what.one()} in the {SIDES[place]} box.", lambda boxes: what.among(boxes[place]) > 0)


def _end(what: _What, rng: random.Random) -> Statement:
    end = rng.choice(("top", "base"))
    sign = 1 if end == "top" else -1  # the picture's y points down

    def holds(boxes: Boxes) -> bool:
        return any(what.among([min(box, key=lambda one: sign * one.top)]) for box in boxes if box)

    return Statement(f"There is a tower with {what.one()} at the {end}.", holds)


def _quantity(count: int, rng: random.Random) -> tuple[str, Callable[[int], bool]]:
    word = rng.choice((str(count), _NUMBERS[count - 1]))
    how = rng.choice(("exactly ", "", "at least ", "at most "))
    if how == "at least ":
        return how + word, lambda found: found >= count
    if how == "at most ":
        return how + word, lambda found: found <= count
    return how + word, lambda found: found == count
