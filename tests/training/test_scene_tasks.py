"""Scenes of training: what is named is where it is said to be, and the wrong answers are wrong."""

import io
import json
import random
from collections.abc import Mapping
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_embed.types import Image, Text
from mllm_embed_training.errors import CorruptRow
from mllm_embed_training.examples import Example, ExampleTask, Side
from mllm_embed_training.scene_tasks import balanced, scene_tasks
from mllm_embed_training.sources import Package, Row

pytestmark = pytest.mark.fast

COLOURS = ("red", "lime", "blue", "yellow", "cyan", "magenta", "black", "orange", "purple", "green")
SCENE = [
    [{"type": "circle", "color": "Yellow", "size": 10, "x_loc": 5, "y_loc": 5}],
    [{"type": "square", "color": "Black", "size": 20, "x_loc": 30, "y_loc": 60}],
    [],
]


def picture(size: tuple[int, int], colour: str) -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def nlvr(image_id: str, boxes: list[list[dict[str, object]]]) -> dict[str, object]:
    scene = PIL.Image.new("RGB", (400, 100), "white")
    for place, box in enumerate(boxes):
        for one in box:
            left, top, size = int(str(one["x_loc"])) + 150 * place, int(str(one["y_loc"])), int(str(one["size"]))
            scene.paste(str(one["color"]).lower(), (left, top, left + size, top + size))
    stream = io.BytesIO()
    scene.save(stream, "PNG")
    return {"image_id": image_id, "structured": json.dumps(boxes), "image": stream.getvalue(), "split": "train"}


@pytest.fixture
def tasks(tmp_path: Path) -> Mapping[str, ExampleTask[Example]]:
    concepts = [
        {"concept_id": colour, "label_en": colour, "group": "g", "tags_en": [], "split": "train"} for colour in COLOURS
    ]
    images = [
        {"image_id": colour, "concept_id": colour, "style": "s", "image": picture((56, 56), colour), "split": "train"}
        for colour in COLOURS
    ]
    pq.write_table(pa.Table.from_pylist(concepts), tmp_path / "emoji_concepts.parquet")
    pq.write_table(pa.Table.from_pylist(images), tmp_path / "emoji_images-00.parquet")
    twins = [[SCENE[0][0], {**SCENE[0][0], "x_loc": 50}], [], []]
    pq.write_table(pa.Table.from_pylist([nlvr("clear", SCENE), nlvr("twins", twins)]), tmp_path / "nlvr.parquet")
    return {name: make() for name, make in scene_tasks(Package(tmp_path)).items()}


def drawn(side: Side) -> PIL.Image.Image:
    source = next(content.source for content in side.content if isinstance(content, Image))
    assert isinstance(source, PIL.Image.Image)
    return source


def words(side: Side) -> str:
    return next(content.text for content in side.content if isinstance(content, Text))


def colour_of(image: PIL.Image.Image, at: tuple[int, int]) -> str:
    pixel = image.getpixel(at)
    return next(name for name in COLOURS if PIL.Image.new("RGB", (1, 1), name).getpixel((0, 0)) == pixel)


def test_the_crop_is_the_object_that_is_named(tasks: Mapping[str, ExampleTask[Example]]) -> None:
    task = tasks["nlvr-object"]
    expected = {"the yellow circle in the left box": "yellow", "the black square in the middle box": "black"}
    seen = set()
    for seed in range(8):
        example = task.draw(task.rows[0], random.Random(seed))
        seen.add(words(example.query))
        assert colour_of(drawn(example.positive), (5, 5)) == expected[words(example.query)]
        assert [colour_of(drawn(side), (5, 5)) != expected[words(example.query)] for side in example.negatives] == [
            True
        ]
    assert seen == set(expected)


def test_a_statement_has_its_truth_as_answer_and_the_other_as_negative(
    tasks: Mapping[str, ExampleTask[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tasks["nlvr-statement"]
    truths = set()
    for seed in range(30):
        example = task.draw(task.rows[0], random.Random(seed))
        said = words(example.query)
        truth = words(example.positive)
        truths.add(truth)
        assert [words(side) for side in example.negatives] == [{"true": "false", "false": "true"}[truth]]
        if said in ("There is a yellow circle.", "There is a black square.", "There is a square."):
            assert truth == "true"
        if said in ("There is no item.", "There is a blue circle.", "There is a triangle."):
            assert truth == "false"
        assert drawn(example.query).size == (400, 100)
    assert truths == {"true", "false"}
    monkeypatch.setattr("mllm_embed_training.statements.TRIES", 0)
    with pytest.raises(CorruptRow, match="scene clear has no statement that is"):
        task.draw(task.rows[0], random.Random(0))


def test_a_scene_in_which_every_name_fits_twice_is_left_out(tasks: Mapping[str, ExampleTask[Example]]) -> None:
    rows = tasks["nlvr-object"].rows
    assert [rows[index]["image_id"] for index in range(len(rows))] == ["clear"]


def test_the_named_sprite_is_in_the_scene_and_its_cell_is_the_answer(
    tasks: Mapping[str, ExampleTask[Example]],
) -> None:
    task = tasks["sprite-scene"]
    for seed, row in enumerate(task.rows[index] for index in range(len(task.rows))):
        example = task.draw(row, random.Random(seed))
        name = words(example.query)
        assert colour_of(drawn(example.positive), (32, 32)) == name
        wrong = [colour_of(drawn(side), (32, 32)) for side in example.negatives]
        assert len(set(wrong)) == 3
        assert name not in wrong
        scene = drawn(example.query)
        cells = [scene.getpixel((32 + 64 * x, 32 + 64 * y)) for x in range(3) for y in range(3)]
        filled = [cell for cell in cells if cell != (255, 255, 255)]
        assert 4 <= len(filled) <= 9
        assert len(set(filled)) == len(filled)
        assert drawn(example.positive).getpixel((32, 32)) in filled


def test_the_side_in_the_instruction_holds_what_is_named(tasks: Mapping[str, ExampleTask[Example]]) -> None:
    task = tasks["sprite-condition"]
    sides = set()
    for seed in range(8):
        example = task.draw(task.rows[seed], random.Random(seed))
        side = example.task.query
        sides.add(side)
        at = {"Look at the left object.": (32, 32), "Look at the right object.": (96, 32)}
        assert colour_of(drawn(example.query), at.pop(side)) == words(example.positive)
        (other,) = at.values()
        assert [words(one) for one in example.negatives] == [colour_of(drawn(example.query), other)]
    assert len(sides) == 2


def said(sentence: str, true: int, false: int) -> list[Row]:
    return [
        {"image_id": f"{sentence}-{number}", "sentence": sentence, "label": number < true}
        for number in range(true + false)
    ]


def test_no_sentence_tells_its_answer_once_rows_are_balanced() -> None:
    rows = [*said("even", 12, 12), *said("mostly false", 6, 18), *said("Mostly true. ", 18, 6), *said("always", 18, 0)]
    share = sum(bool(row["label"]) for row in rows) / len(rows)  # 54 of 90
    kept = balanced(rows)
    by_sentence: dict[str, list[bool]] = {}
    for row in kept:
        by_sentence.setdefault(str(row["sentence"]), []).append(bool(row["label"]))
    assert {name: (sum(answers), len(answers)) for name, answers in by_sentence.items()} == {
        "even": (12, 20),
        "mostly false": (6, 10),
        "Mostly true. ": (9, 15),
    }
    assert share == 12 / 20
    ids = [row["image_id"] for row in kept]
    assert len(ids) == len(set(ids))


def test_sentences_that_differ_in_case_and_blanks_are_one() -> None:
    assert len(balanced([*said("There is a box.", 1, 0), *said(" there is a box.", 0, 1)])) == 2


def test_nothing_is_left_of_rows_with_one_answer() -> None:
    assert balanced(said("true", 3, 0)) == []
    assert balanced([]) == []
