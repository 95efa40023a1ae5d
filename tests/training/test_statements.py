"""Statements about scenes: true where they say so, false where they do not, and no word tells which."""

import random
import re
from collections import Counter

import pytest

from mllm_embed.evaluation.scenes import SceneObject
from mllm_embed_training.statements import COLOURS, SHAPES, Statements, are_towers, in_boxes

pytestmark = pytest.mark.fast

WORDS = {colour: word for word, colour in COLOURS.items()}
NUMBERS = {word: count for count, word in enumerate(("one", "two", "three", "four", "five", "six"), start=1)}


def scattered(rng: random.Random) -> list[SceneObject]:
    return [
        SceneObject(rng.choice(SHAPES), rng.choice(tuple(COLOURS.values())), 20, box, 150 * box + 30 * place, 7 * place)
        for box in range(3)
        for place in range(rng.randint(1, 4))
    ]


def towers(rng: random.Random) -> list[SceneObject]:
    return [
        SceneObject("square", rng.choice(tuple(COLOURS.values())), 20, box, 150 * box, 80 - 21 * place)
        for box in range(3)
        for place in range(rng.randint(1, 4))
    ]


def checked(sentence: str, objects: list[SceneObject]) -> bool:
    """Read a statement word by word, and look whether it is true."""
    box_words = {"left": 0, "middle": 1, "right": 2}
    kind = re.search(r"(yellow|black|blue)? ?(circle|square|triangle|item|object|block)s?\b", sentence)
    assert kind, sentence

    def count(found: list[SceneObject]) -> int:
        colour, shape = kind[1], kind[2] if kind[2] in SHAPES else None
        return sum(colour in (None, WORDS[one.colour]) and shape in (None, one.shape) for one in found)

    boxes = [[one for one in objects if one.box == box] for box in range(3)]
    if place := re.search(r"in the (left|middle|right) box", sentence):
        return count(boxes[box_words[place[1]]]) > 0
    if end := re.search(r"at the (top|base)", sentence):
        ordered = [sorted(box, key=lambda one: one.top) for box in boxes]
        return any(count([box[0 if end[1] == "top" else -1]]) for box in ordered)
    if sentence.startswith("Each"):
        return all(count(box) for box in boxes)
    number = re.search(r"(exactly|at least|at most)? ?\b(\d|one|two|three|four|five|six)\b", sentence)
    if number is None:
        return (count(objects) > 0) != ("no " in sentence)
    wanted = int(number[2]) if number[2].isdigit() else NUMBERS[number[2]]

    def enough(found: int) -> bool:
        return {"at least": found >= wanted, "at most": found <= wanted}.get(number[1] or "", found == wanted)

    if " with " in sentence:
        return any(enough(count(box)) for box in boxes) != sentence.startswith("There is no")
    return enough(count(objects))


@pytest.mark.parametrize("make", [scattered, towers])
def test_statements_are_as_true_as_wanted_and_their_words_do_not_tell(make: object) -> None:
    rng = random.Random(0)
    scenes = [make(rng) for _ in range(300)]  # type: ignore[operator]
    assert all(are_towers(in_boxes(scene)) == (make is towers) for scene in scenes)
    statements = Statements(scenes)
    seen: Counter[tuple[str, bool]] = Counter()
    for scene in scenes * 20:
        truth = rng.random() < 0.5
        sentence = statements.draw(scene, truth, rng)
        assert sentence
        assert checked(sentence, scene) == truth, sentence
        seen[sentence, truth] += 1
    often = {sentence for sentence, _ in seen if seen[sentence, True] + seen[sentence, False] >= 20}
    known = sum(max(seen[sentence, True], seen[sentence, False]) for sentence in often)
    assert known / sum(seen[sentence, truth] for sentence in often for truth in (True, False)) < 0.62
    assert len({re.sub(r"yellow|black|blue|circle|square|triangle|item|object", "", one) for one, _ in seen}) > 30


def test_a_scene_of_which_nothing_that_fits_is_found_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllm_embed_training.statements.TRIES", 0)
    scene = scattered(random.Random(1))
    assert Statements([scene]).draw(scene, truth=True, rng=random.Random(0)) is None


def test_equal_seeds_give_equal_statements() -> None:
    scene = scattered(random.Random(1))
    one, other = (
        [Statements([scene]).draw(scene, truth=True, rng=random.Random(seed)) for seed in range(9)] for _ in "ab"
    )
    assert one == other
