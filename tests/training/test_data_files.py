"""Own files as training data: every format and schema, read at random, corrupt rows named."""

import base64
import io
import json
import pickle
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from mllm_embed.tasks import DEFAULT, get_task
from mllm_embed.types import Image, Text, Video
from mllm_embed_training.config import DataSection
from mllm_embed_training.data_files import file_task, open_rows
from mllm_embed_training.errors import CorruptRow, DataFileError
from mllm_embed_training.examples import Example, ExampleTask


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def opened(path: Path | str, schema: str = "pairs", **settings: Any) -> ExampleTask[Example]:
    chosen = {"task": get_task(DEFAULT), "images": None, "negatives": None, **settings}
    return file_task(str(path), schema=schema, cache=Path(path).parent / "cache", **chosen)


def example(task: ExampleTask[Example], row: int = 0) -> Example:
    return task.draw(task.rows[row], random.Random(row))


DATA_URI = f"data:image/gif;base64,{base64.b64encode(b'GIF8').decode()}"
ROWS = [{"query": f"question {number}", "positive": f"answer {number}"} for number in range(5)]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.jsonl", lambda path: write_jsonl(path, *ROWS)),
        ("rows.parquet", lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=2)),
        ("rows.csv", lambda path: pyarrow.csv.write_csv(pa.Table.from_pylist(ROWS), path)),
        (
            "rows.tsv",
            lambda path: path.write_text(
                "query\tpositive\n" + "".join(f"{row['query']}\t{row['positive']}\n" for row in ROWS)
            ),
        ),
    ],
)
def test_every_format_gives_any_row_at_any_time(name: str, write: Callable[[Path], object], tmp_path: Path) -> None:
    write(tmp_path / name)
    rows = open_rows(str(tmp_path / name), tmp_path / "cache")
    assert len(rows) == 5
    assert [rows[index] for index in (4, 0, 2)] == [ROWS[4], ROWS[0], ROWS[2]]
    assert pickle.loads(pickle.dumps(rows))[3] == ROWS[3]  # noqa: S301  # worker processes get it so


def test_a_pattern_names_several_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (1, 0, 2):
        write_jsonl(tmp_path / f"part-{number}.jsonl", *[{"n": 10 * number + place} for place in range(number + 1)])
    rows = open_rows(str(tmp_path / "part-*.jsonl"), tmp_path / "cache")
    assert [rows[index]["n"] for index in range(len(rows))] == [0, 10, 11, 20, 21, 22]


def test_a_changed_parquet_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    for answer in ("one", "another one"):
        pq.write_table(pa.Table.from_pylist([{"query": "q", "positive": answer}]), file)
        assert open_rows(str(file), tmp_path / "cache")[0]["positive"] == answer


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "there is no file .*none.jsonl"),
        ("rows.xml", b"<a/>", r"rows.xml must be one of .jsonl, .parquet"),
        ("rows.parquet", b"PAR1 but not really", "rows.parquet cannot be read"),
        ("rows.tar", b"no archive" * 100, "rows.tar cannot be read"),
        ("rows.jsonl", b"\n\n", "rows.jsonl has no rows"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataFileError, match=message):
        open_rows(str(tmp_path / name), tmp_path / "cache")


def test_a_broken_line_is_that_rows_fault_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "positive": "b"}\n{"query": \n\n[1]\n')
    rows = open_rows(str(tmp_path / "rows.jsonl"), tmp_path)
    assert rows[0]["query"] == "a"
    with pytest.raises(CorruptRow, match="it is not JSON"):
        rows[1]
    with pytest.raises(CorruptRow, match="it must be a JSON object, but is list"):
        rows[2]


def test_a_side_is_a_text_a_picture_both_or_a_sequence(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png("red"))
    sequence = [{"image": "red.png"}, "between", {"image": "red.png"}]
    row = {"query": sequence, "positive": {"text": "red", "image": "red.png"}, "negatives": ["green", "blue"]}
    made = example(opened(write_jsonl(tmp_path / "rows.jsonl", row)))
    picture = Image(png("red"))
    assert made.query.content == (picture, Text("between"), picture)
    assert made.positive.content == (picture, Text("red"))
    assert [side.content for side in made.negatives] == [(Text("green"),), (Text("blue"),)]
    assert made.task == get_task(DEFAULT)


def test_pictures_come_as_paths_bytes_or_data_uris(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "red.png").write_bytes(png("red"))
    uri = f"data:image/png;base64,{base64.b64encode(png('red')).decode()}"
    lines = write_jsonl(tmp_path / "a.jsonl", {"query": {"image": "red.png"}, "positive": {"image": uri}})
    from_lines = example(opened(lines, images=tmp_path / "pictures"))
    stored = [{"query": {"image": {"bytes": png("red"), "path": None}}, "positive": {"image": {"bytes": png("red")}}}]
    pq.write_table(pa.Table.from_pylist(stored), tmp_path / "b.parquet")
    from_columns = example(opened(tmp_path / "b.parquet"))
    sides = [side for one in (from_lines, from_columns) for side in (one.query, one.positive)]
    assert {side.content for side in sides} == {(Image(png("red")),)}
    assert len({side.key for side in sides}) == 1, "equal pictures must have equal keys, whatever they are called"


def test_a_side_may_be_a_video_and_says_how_it_is_sampled(tmp_path: Path) -> None:
    (tmp_path / "cat.mp4").write_bytes(b"a film")
    row = {
        "query": {"text": "the same at night", "video": "cat.mp4"},
        "positive": {"video": "cat.mp4", "frames": 4, "fps": 0.5},
        "negatives": [{"video": "cat.mp4"}, {"video": "cat.mp4", "frames": 8, "fps": None}],
    }
    made = example(opened(write_jsonl(tmp_path / "rows.jsonl", row)))
    assert made.query.content == (Video(b"a film"), Text("the same at night"))
    assert made.positive.content == (Video(b"a film", frames=4, fps=0.5),)
    assert [side.content for side in made.negatives] == [(Video(b"a film"),)] * 2
    assert made.negatives[0].key == made.negatives[1].key != made.positive.key
    picture = example(opened(write_jsonl(tmp_path / "other.jsonl", {"query": {"image": "cat.mp4"}, "positive": "p"})))
    assert picture.query.key != made.negatives[0].key


def test_a_question_may_be_about_a_video(tmp_path: Path) -> None:
    (tmp_path / "cat.mp4").write_bytes(b"a film")
    turns = [{"from": "human", "value": "<video>\nWhat happens?"}, {"from": "gpt", "value": "A cat sleeps."}]
    row = {"video": "cat.mp4", "conversations": turns}
    made = example(opened(write_jsonl(tmp_path / "rows.jsonl", row), schema="llava"))
    assert (made.task.query, made.query.content) == ("What happens?", (Video(b"a film"),))
    assert made.positive.content == (Text("A cat sleeps."),)


def test_keys_follow_content_not_spelling(tmp_path: Path) -> None:
    row = {"query": "A  red\nSquare", "positive": "a red square", "negatives": ["a red circle"]}
    made = example(opened(write_jsonl(tmp_path / "rows.jsonl", row)))
    assert made.query.key == made.positive.key != made.negatives[0].key


def test_several_positives_may_be_graded(tmp_path: Path) -> None:
    row = {"query": "animal", "positives": ["a cat", "a toy cat"], "grades": [1, 0.5]}
    made = example(opened(write_jsonl(tmp_path / "rows.jsonl", row)))
    assert [side.content for side in (made.positive, *made.also)] == [(Text("a cat"),), (Text("a toy cat"),)]
    assert made.grades == (1.0, 0.5)


def test_columns_of_sentence_transformers_are_read(tmp_path: Path) -> None:
    row = {"anchor": "q", "positive": "p", "negative_2": "n2", "negative_1": "n1", "negative_10": "n10"}
    made = example(opened(write_jsonl(tmp_path / "rows.jsonl", row)))
    assert made.query.content == (Text("q"),)
    assert [side.content[0] for side in made.negatives] == [Text("n1"), Text("n2"), Text("n10")]


def test_negatives_are_drawn_anew_from_many(tmp_path: Path) -> None:
    row = {"query": "q", "positive": "p", "negatives": [f"n{number}" for number in range(20)]}
    task = opened(write_jsonl(tmp_path / "rows.jsonl", row), negatives=2)
    drawn = {task.draw(task.rows[0], random.Random(seed)).negatives for seed in range(9)}
    assert {len(negatives) for negatives in drawn} == {2}
    assert len(drawn) > 1


def test_a_row_may_bring_its_own_instructions(tmp_path: Path) -> None:
    own = {"query": "Find the recipe.", "target": "A dish."}
    file = write_jsonl(tmp_path / "a.jsonl", *[{**ROWS[0], "task": task} for task in ("text-to-text", own, "none")])
    task = opened(file)
    assert example(task, 0).task == get_task("text-to-text")
    assert (example(task, 1).task.query, example(task, 1).task.target) == ("Find the recipe.", "A dish.")
    with pytest.raises(CorruptRow, match="its task must be a built-in one or give query and target, but is 'none'"):
        example(task, 2)


def test_rows_of_mmeb_are_read_with_the_picture_where_its_slot_is(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(png("grey"))
    row = {
        "qry": "<|image_1|>\nRepresent the given image with the following question: What is it?",
        "qry_image_path": "cat.png",
        "pos_text": "a cat",
        "pos_image_path": "",
        "neg_text": ["a dog", "a cow"],
        "neg_image_path": ["", ""],
    }
    made = example(opened(write_jsonl(tmp_path / "rows.jsonl", row), schema="mmeb"))
    question = Text("Represent the given image with the following question: What is it?")
    assert made.query.content == (Image(png("grey")), question)
    assert made.positive.content == (Text("a cat"),)
    assert [side.content for side in made.negatives] == [(Text("a dog"),), (Text("a cow"),)]


def test_a_conversation_gives_a_question_as_instruction(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(png("grey"))
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "A cat."), ("human", "Which colour?"), ("gpt", "Grey.")]
    row = {"image": "cat.png", "conversations": [{"from": who, "value": said} for who, said in turns]}
    task = opened(write_jsonl(tmp_path / "rows.jsonl", row, {"image": "cat.png", "conversations": []}), schema="llava")
    drawn = [task.draw(task.rows[0], random.Random(seed)) for seed in range(9)]
    assert {(one.task.query, one.positive.content) for one in drawn} == {
        ("What is it?", (Text("A cat."),)),
        ("Which colour?", (Text("Grey."),)),
    }
    assert {one.query.content for one in drawn} == {(Image(png("grey")),)}
    with pytest.raises(CorruptRow, match="it needs an image or a video, and conversations"):
        example(task, 1)


def test_shards_hold_captioned_pictures_or_rows(tmp_path: Path) -> None:
    row = {"query": {"image": "0.png", "text": "the same in blue"}, "positive": {"image": "1.png"}}
    shard = write_tar(
        tmp_path / "shard-000.tar",
        {
            "a/001.txt": b"a red square\n",
            "a/001.png": png("red"),
            "a/002.json": json.dumps(row).encode(),
            "a/002.0.png": png("red"),
            "a/002.1.png": png("blue"),
            "a/003.txt": b"no picture",
            "a/004.txt": b"a cat falls asleep",
            "a/004.mp4": b"a film",
        },
    )
    task = opened(shard, schema="webdataset")
    assert len(task.rows) == 4
    assert example(task, 3).positive.content == (Video(b"a film"),)
    assert (example(task, 0).query.content, example(task, 0).positive.content) == (
        (Text("a red square"),),
        (Image(png("red")),),
    )
    assert example(task, 1).query.content == (Image(png("red")), Text("the same in blue"))
    assert example(task, 1).positive.content == (Image(png("blue")),)
    with pytest.raises(CorruptRow, match=r"sample a/003 has neither a \.json with a query nor a \.txt and a picture"):
        example(task, 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"positive": "p"}, "it has no query"),
        ({"query": "q"}, "it has no positive"),
        ({"query": " ", "positive": "p"}, "a side has neither text nor image"),
        ({"query": 3, "positive": "p"}, "a side must be a text, or have text and image, .* but is int"),
        ({"query": {"picture": "x"}, "positive": "p"}, r"but is picture$"),
        ({"query": {"image": "a.png", "video": "a.mp4"}, "positive": "p"}, "but is image, video$"),
        ({"query": {"text": "q", "frames": 2}, "positive": "p"}, "but is frames, text$"),
        ({"query": {"video": DATA_URI, "frames": 0}, "positive": "p"}, "its video: frames of a video must be at least"),
        ({"query": {"video": DATA_URI, "fps": "1"}, "positive": "p"}, "its video: '>' not supported"),
        ({"query": {"image": "gone.png"}, "positive": "p"}, r"its file 'gone.png' cannot be read \(No such file"),
        ({"query": {"image": "data:image/png;base64,%%"}, "positive": "p"}, "its data URI is not base64"),
        ({"query": "q", "positives": []}, "positives must be a list of at least one"),
        ({"query": "q", "positives": ["a", "b"], "grades": [1]}, "grades must be 2 numbers above 0"),
        ({"query": "q", "positives": ["a"], "grades": ["high"]}, "grades must be 1 numbers above 0"),
        ({"query": "q", "positive": "p", "negatives": "abc"}, "negatives must be a list, but are str"),
        ({"query": "q", "positive": "p", "negatives": [7]}, "a side must be a text, or have text and image"),
        ({"query": "q", "positive": "p", "anwser": "p"}, "it has the unknown field 'anwser'"),
    ],
)
def test_a_corrupt_row_says_why(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    task = opened(write_jsonl(tmp_path / "rows.jsonl", row))
    with pytest.raises(CorruptRow, match=message):
        example(task)


def test_what_the_guide_shows_is_read(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "training-data.md").read_text()
    recipe = yaml.safe_load(guide.split("```yaml\n")[1].split("```")[0])
    assert set(DataSection.model_validate(recipe["data"]).files) == {"products", "captions"}
    (tmp_path / "shoes").mkdir()
    for name in ("17.jpg", "18.jpg"):
        (tmp_path / "shoes" / name).write_bytes(png("red"))
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "3.mp4").write_bytes(b"a film")
    (tmp_path / "rows.jsonl").write_text(guide.split("```json\n")[1].split("```")[0])
    task = opened(tmp_path / "rows.jsonl")
    made = [example(task, row) for row in range(len(task.rows))]
    assert [len(one.negatives) for one in made] == [0, 1, 0, 0]
    assert made[2].grades == (1.0, 0.5)
    assert made[3].positive.content == (Video(b"a film", frames=8, fps=1),)
