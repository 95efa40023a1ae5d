import io
import json
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pyarrow.parquet as pq
import pytest

from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError
from mllm_embed.evaluation.mini_mmeb import build_tasks
from mllm_embed.evaluation.mini_mmeb_scenes import _asked as asked_of
from mllm_embed.evaluation.pools import Selection
from mllm_embed.evaluation.scenes import scene_objects
from mllm_embed.types import EmbedInput, Image, Text
from tests.library.evaluation.conftest import SCENE, STYLES, write_table
from tests.library.evaluation.shown import DRAWN, Names, part, shown

pytestmark = pytest.mark.fast


def drawn(item: EmbedInput) -> PIL.Image.Image:
    """The picture that a task made."""
    source = next(content.source for content in item.content if isinstance(content, Image))
    assert isinstance(source, PIL.Image.Image)
    return source


def is_drawn(item: EmbedInput) -> bool:
    (first, *_) = item.content
    return isinstance(first, Image) and isinstance(first.source, PIL.Image.Image)


def text(item: EmbedInput) -> str:
    return next(content.text for content in item.content if isinstance(content, Text))


def test_objects_that_look_the_same_are_one_crop(tasks: dict[str, EvalTask], names: Names) -> None:
    problem = part(tasks["nlvr-object"])
    assert problem.pool == 0  # a query sees the objects of its own scene only
    assert sorted(shown(query.item, names).split(" + ")[0] for query in problem.queries) == ["n0", "n1", "n2"]
    for query in problem.queries:
        looks = {drawn(problem.candidates[place]).size for place in query.extras}
        assert looks == {(10, 10), (20, 20), (30, 30)}
        assert set(query.truths) < set(query.extras)


def test_only_an_unmistakable_object_is_asked(tasks: dict[str, EvalTask]) -> None:
    problem = part(tasks["nlvr-object"])
    expected = {
        "the yellow circle in the left box": ((10, 10), (255, 255, 0)),
        "the yellow circle in the right box": ((10, 10), (255, 255, 0)),
        "the black triangle in the right box": ((30, 30), (0, 0, 0)),
    }
    for query in problem.queries:  # never "the blue square in the middle box": there are two
        (place,) = query.truths
        crop = drawn(problem.candidates[place])
        assert (crop.size, crop.getpixel((5, 5))) == expected[text(query.item)]


@pytest.mark.parametrize("scene", [f"scene {i}" for i in range(12)])
def test_a_name_that_fits_two_objects_is_never_asked(scene: str) -> None:
    row = {"image_id": scene, "structured": json.dumps(SCENE)}
    asked = asked_of(row, scene_objects(row))
    assert asked is not None
    assert asked.name != "the blue square in the middle box"
    assert asked_of(row, scene_objects({**row, "structured": json.dumps([SCENE[1]])})) is None


def test_objects_that_cannot_be_read_are_named(make_data: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make_data(tmp_path / "data")
    rows = pq.read_table(folder / "nlvr.parquet").to_pylist()
    rows[2]["structured"] = '[[{"type": "circle"}]]'
    write_table(folder, "nlvr", rows)
    with pytest.raises(EvaluationError, match="objects of scene n2 cannot be read"):
        build_tasks(DataFolder(folder), Selection(), ["nlvr-object"])


def test_a_named_sprite_is_one_of_the_crops_of_its_scene(tasks: dict[str, EvalTask]) -> None:
    problem = part(tasks["sprite-scene"])
    assert problem.pool == 0
    for query in problem.queries:
        assert 4 <= len(query.extras) <= 9
        assert set(query.truths) < set(query.extras)
        scene = drawn(query.item)
        assert scene.size == (192, 192)
        crops = [drawn(problem.candidates[place]).tobytes() for place in query.extras]
        cells = [scene.crop((x, y, x + 64, y + 64)).tobytes() for x in (0, 64, 128) for y in (0, 64, 128)]
        assert len(set(crops)) == len(crops)
        assert set(crops) <= set(cells)


def test_the_right_crop_shows_the_named_sprite(tasks: dict[str, EvalTask], data_path: Path) -> None:
    rows = [row for file in data_path.glob("emoji_images-*.parquet") for row in pq.read_table(file).to_pylist()]
    pictures = {(row["style"], row["concept_id"]): row["image"] for row in rows}
    problem = part(tasks["sprite-scene"])
    query = next(q for q in problem.queries if "noto" in q.slices and text(q.item) == "ear")
    sprite = PIL.Image.open(io.BytesIO(pictures["noto", "ear"])).convert("RGBA")
    crop = drawn(problem.candidates[query.truths[0]])
    assert crop.getpixel((32 - 16 + 4, 32)) == sprite.getpixel((4, 16))[:3]  # type: ignore[index]


def test_both_sides_of_a_picture_are_asked_by_instruction(tasks: dict[str, EvalTask], names: Names) -> None:
    problem = part(tasks["sprite-condition"])
    found = [shown(item, names) for item in problem.candidates]
    assert found == sorted(set(found))
    assert {"animal 3", "hand", "ear"} <= set(found)  # names of all concepts, those seen in training too
    by_scene: dict[str, list[tuple[str | None, str]]] = {}
    for query in problem.queries:
        assert shown(query.item, names) == DRAWN
        by_scene.setdefault(query.instance, []).append((query.item.instruction, found[query.truths[0]]))
    for asked in by_scene.values():
        assert [instruction for instruction, _ in asked] == ["Look at the left object.", "Look at the right object."]
        assert len({name for _, name in asked}) == 2
    assert {style for query in problem.queries for style in query.slices} >= {*STYLES, "left", "right", "test_new"}


def test_scenes_are_the_same_every_time(data_path: Path) -> None:
    wanted = ["sprite-scene", "sprite-condition", "nlvr-object"]
    one, other = (build_tasks(DataFolder(data_path), Selection(), wanted) for _ in range(2))
    for left, right in zip(one, other, strict=True):
        assert [drawn(item).tobytes() for item in left.items() if is_drawn(item)] == [
            drawn(item).tobytes() for item in right.items() if is_drawn(item)
        ]
