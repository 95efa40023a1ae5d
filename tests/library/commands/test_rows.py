"""Names on the command line -> rows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from mllm_embed.commands.rows import Row, collect
from mllm_embed.errors import InvalidInput
from mllm_embed.types import Image, Page, Region, Text, Video

pytestmark = pytest.mark.fast


def rows(*names: Path | str, stdin: str = "") -> list[Row]:
    return collect([str(name) for name in names], io.StringIO(stdin))


def test_a_folder_gives_its_pictures_texts_and_records_in_order(
    tmp_path: Path, draw: Callable[..., PIL.Image.Image]
) -> None:
    (tmp_path / "deep").mkdir()
    draw(0).save(tmp_path / "deep" / "a.png")
    (tmp_path / "b.txt").write_text("one\n\nthree\n")
    (tmp_path / "c.jsonl").write_text('{"id": "both", "text": "t", "image": "deep/a.png", "instruction": "i"}\n')
    (tmp_path / "ignored.csv").write_text("x")
    found = rows(tmp_path)
    names = [str(tmp_path / "b.txt:1"), str(tmp_path / "b.txt:3"), "both", str(tmp_path / "deep" / "a.png")]
    assert [row.id for row in found] == names
    assert found[2].item.content == (Image(str(tmp_path / "deep" / "a.png")), Text("t"))
    assert found[2].item.instruction == "i"


def test_standard_input_gives_a_row_per_line() -> None:
    assert [(row.id, row.text) for row in rows("-", stdin="a\n\nb")] == [("stdin:1", "a"), ("stdin:3", "b")]


def test_a_file_named_twice_is_one_row(tmp_path: Path, draw: Callable[..., PIL.Image.Image]) -> None:
    draw(0).save(tmp_path / "a.png")
    assert len(rows(tmp_path / "a.png", tmp_path)) == 1


def test_the_key_follows_the_content(tmp_path: Path, draw: Callable[..., PIL.Image.Image]) -> None:
    picture = tmp_path / "a.png"
    draw(0).save(picture)
    (before,) = rows(picture)
    assert rows(picture) == [before]
    draw(1, width=200).save(picture)
    assert rows(picture)[0].key != before.key


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be an object"),
        ('{"text": 1}', "values are strings"),
        ('{"txt": "a"}', "but holds txt"),
        ('{"id": "a"}', "must hold text, image, or both"),
        ('{"text": "a", "region": {"point": [1, 2]}}', "has a region, but no image"),
        ('{"image": "a", "region": {"point": [1]}}', "the point of a region must be 2 finite numbers"),
        ('{"image": "a", "region": "left"}', "must be an object with one of point, box and mask"),
    ],
)
def test_a_malformed_record_is_named_by_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(InvalidInput, match=complaint) as error:
        rows(file)
    assert f"{file}:2" in str(error.value)


def test_two_records_of_one_id_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n')
    with pytest.raises(InvalidInput, match="'a'"):
        rows(file)


def test_what_is_absent_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no file or folder"):
        rows(tmp_path / "none")
    with pytest.raises(InvalidInput, match="nothing to embed"):
        rows(tmp_path)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "latin.txt"
    file.write_bytes(b"caf\xe9\n")
    with pytest.raises(InvalidInput, match="must be UTF-8"):
        rows(file)


def test_a_document_gives_a_row_per_page_and_a_video_one(tmp_path: Path) -> None:
    report, film = tmp_path / "report.pdf", tmp_path / "FILM.MP4"
    sheets = [PIL.Image.new("L", (72, 72), grey) for grey in (0, 255)]
    sheets[0].save(report, "PDF", save_all=True, append_images=sheets[1:])
    film.write_bytes(b"not looked at yet")
    found = rows(tmp_path)
    assert [row.id for row in found] == [str(film), f"{report}#page=1", f"{report}#page=2"]
    assert [row.item.content for row in found] == [(Video(film),), (Page(report, 1),), (Page(report, 2),)]
    assert len({row.key for row in found}) == 3


def test_a_document_that_cannot_be_opened_is_a_row_that_will_say_why(tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"no document")
    (row,) = rows(tmp_path / "broken.pdf")
    assert row.item.content == (Page(tmp_path / "broken.pdf", 1),)


def test_a_record_may_mean_a_region_of_its_picture(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    masks = [{"mask": "m.png"}, {"mask": "data:image/png;base64,AAAA"}]
    regions: list[Any] = [{"box": [0, 1, 2, 3]}, {"box": [0, 1, 2, 4]}, *masks, None]
    file.write_text("\n".join(json.dumps({"image": "a.png", "text": "b", "region": one}) for one in regions))
    found = rows(file)
    source = str(tmp_path / "a.png")
    assert [row.item.content[0] for row in found] == [
        Image(source, Region(box=(0, 1, 2, 3))),
        Image(source, Region(box=(0, 1, 2, 4))),
        Image(source, Region(mask=str(tmp_path / "m.png"))),
        Image(source, Region(mask="data:image/png;base64,AAAA")),
        Image(source),
    ]
    assert {row.item.content[1] for row in found} == {Text("b")}
    assert len({row.key for row in found}) == 5
    file.write_text(file.read_text().replace("[0, 1, 2, 3]", "[0, 1, 2, 5]"))
    assert rows(file)[0].key not in {row.key for row in found}
    before = rows(file)[2].key
    (tmp_path / "m.png").write_bytes(b"now it is there")
    assert rows(file)[2].key != before
