from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mllm_embed.errors import InvalidInput
from mllm_embed.toy_shapes import COLORS, POSITIONS, SHAPES, SIZES, ToyObject, ToyScene, draw, scenes, write_scenes

pytestmark = pytest.mark.fast

SIDE = 96
SCENES = list(scenes(300, seed=3, side=SIDE))


def ink(image: PIL.Image.Image) -> tuple[int, int, int, int]:
    """Box of everything that is not white."""
    rows, columns = np.nonzero((np.asarray(image) < 250).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def difference(scene: ToyScene) -> set[str]:
    """Attributes in which the edited objects differ from the scene's."""
    before, after = Counter(scene.objects), Counter(scene.edit.objects)
    (old,), (new,) = list(before - after), list(after - before)
    return {key for key in ("shape", "color", "size", "position") if getattr(old, key) != getattr(new, key)}


def test_equal_seeds_give_equal_scenes_and_fewer_are_the_beginning_of_more() -> None:
    again = list(scenes(20, seed=3, side=SIDE))
    assert [(s.caption, s.questions, s.edit.sentence) for s in again] == [
        (s.caption, s.questions, s.edit.sentence) for s in SCENES[:20]
    ]
    assert all(a.image.tobytes() == b.image.tobytes() for a, b in zip(again, SCENES, strict=False))
    assert [s.caption for s in scenes(20, seed=4)] != [s.caption for s in again]


def test_the_global_random_state_is_neither_used_nor_changed() -> None:
    before = str(np.random.get_state())  # noqa: NPY002 - this is the state in question
    list(scenes(5, seed=0))
    assert str(np.random.get_state()) == before  # noqa: NPY002


def test_captions_are_unique_and_say_everything() -> None:
    assert len({scene.caption for scene in SCENES}) == len(SCENES)
    for scene in SCENES:
        for item in scene.objects:
            assert f"a {item.size} {item.color} {item.shape} in the {item.position}" in scene.caption


def test_every_value_occurs() -> None:
    objects = [item for scene in SCENES for item in scene.objects]
    assert {item.shape for item in objects} == set(SHAPES)
    assert {item.color for item in objects} == set(COLORS)
    assert {item.size for item in objects} == set(SIZES)
    assert {item.position for item in objects} == set(POSITIONS)
    assert {len(scene.objects) for scene in SCENES} == {1, 2, 3, 4}


def test_the_box_is_where_the_ink_is() -> None:
    for scene in SCENES:
        for item in {*scene.objects, *scene.edit.objects}:
            drawn = ink(draw([item], SIDE))
            assert max(abs(a - b) for a, b in zip(drawn, item.box, strict=True)) <= 1
            assert min(item.box) >= 0
            assert max(item.box) <= SIDE


def test_the_center_of_an_object_has_its_color_and_lies_in_its_quarter() -> None:
    for scene in SCENES:
        for item in scene.objects:
            left, top, right, bottom = item.box
            x, y = (left + right) // 2, (top + bottom) // 2
            assert scene.image.getpixel((x, y)) == COLORS[item.color]
            assert POSITIONS[item.position] == (int(x >= SIDE / 2), int(y >= SIDE / 2))


def test_shapes_look_different() -> None:
    pictures = {}
    for shape in SHAPES:
        item = ToyObject(shape, "black", "large", "top left", (0, 0, 0, 0), (0.0, 0.0))
        pictures[shape] = np.asarray(draw([item], SIDE)).astype(int)
    for first in SHAPES:
        for second in SHAPES:
            if first < second:
                assert np.abs(pictures[first] - pictures[second]).mean() > 2, (first, second)


def test_answers_are_true() -> None:
    answers: Counter[str] = Counter()
    for scene in SCENES:
        names = [item.name for item in scene.objects]
        assert len(names) == len(set(names))
        boxes = {item.name: item.box for item in scene.objects}
        for question in scene.questions:
            answers[question.answer] += 1
            words = question.text.rstrip("?").split()
            if words[0] == "Is" and words[1] == "there":
                expected = "yes" if " ".join(words[3:]) in names else "no"
            elif words[:2] == ["How", "many"] and words[2] == "shapes":
                expected = str(len(names))
            elif words[:2] == ["How", "many"]:
                expected = str(sum(name.startswith(words[2]) for name in names))
            else:
                first, second = boxes[" ".join(words[2:4])], boxes[" ".join(words[-2:])]
                relation = " ".join(words[4:-3])
                axis, sign = {
                    "to the left of": (0, 1),
                    "to the right of": (0, -1),
                    "above": (1, 1),
                    "below": (1, -1),
                }[relation]
                gap = (second[axis] + second[axis + 2]) - (first[axis] + first[axis + 2])
                expected = "yes" if sign * gap > 0 else "no"
            assert question.answer == expected, (scene.caption, question)
    assert {"yes", "no", "0", "1", "2", "3", "4"} <= set(answers)


def test_an_edit_changes_one_attribute_and_says_so() -> None:
    kinds: Counter[str] = Counter()
    for scene in SCENES:
        (changed,) = difference(scene)
        kinds[changed] += 1
        (new,) = Counter(scene.edit.objects) - Counter(scene.objects)
        assert scene.edit.sentence.endswith(f"{getattr(new, changed)}.")
        assert scene.edit.caption != scene.caption
        assert scene.edit.image.tobytes() != scene.image.tobytes()
        assert draw(scene.edit.objects, SIDE).tobytes() == scene.edit.image.tobytes()
        assert len({item.position for item in scene.edit.objects}) == len(scene.objects)
        assert len({item.name for item in scene.edit.objects}) == len(scene.objects)
    assert set(kinds) == {"color", "shape", "size", "position"}


def test_limits_are_named() -> None:
    with pytest.raises(InvalidInput, match="at least 32 pixels, but is 31"):
        next(scenes(1, 0, side=31))
    with pytest.raises(InvalidInput, match="between 1 and 4, but is 5"):
        next(scenes(1, 0, max_objects=5))
    with pytest.raises(InvalidInput, match="448 different scenes of one shape, but 449"):
        next(scenes(449, 0, max_objects=1))
    assert len(list(scenes(448, 0, max_objects=1, side=32))) == 448


def test_scenes_are_written_as_files_and_lines(tmp_path: Path) -> None:
    table = write_scenes(tmp_path / "toys", 5, 3, side=SIDE)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert [row["caption"] for row in rows] == [scene.caption for scene in SCENES[:5]]
    for row, scene in zip(rows, SCENES, strict=False):
        with PIL.Image.open(table.parent / row["file"]) as image:
            assert image.tobytes() == scene.image.tobytes()
        with PIL.Image.open(table.parent / row["edit"]["file"]) as image:
            assert image.tobytes() == scene.edit.image.tobytes()
        assert row["edit"]["sentence"] == scene.edit.sentence
        assert [tuple(item["box"]) for item in row["objects"]] == [item.box for item in scene.objects]
        assert row["questions"][0] == {"text": scene.questions[0].text, "answer": "yes"}
