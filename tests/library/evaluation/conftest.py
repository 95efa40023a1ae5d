"""A small data folder with the columns of the real one; its pictures are drawn here."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Row = dict[str, Any]
STYLES = ("fluent-3d", "fluent-flat", "noto", "openmoji-black", "openmoji-color")


def picture(name: str) -> bytes:
    """Draw a small sprite whose colours depend on the name."""
    digest = hashlib.sha256(name.encode()).digest()
    image = PIL.Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste(tuple(digest[:3]), (0, 0, 16, 32))
    image.paste(tuple(digest[3:6]), (16, 8, 32, 24))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _concept(concept_id: str, label: str, split: str, *, base: str = "", tones: tuple[str, ...] = ()) -> Row:
    base = base or concept_id
    group = "people-body" if tones or base in ("hand", "ear") else "animals-nature"
    return {
        "concept_id": concept_id,
        "label_en": label,
        "group": group,
        "base_id": base,
        "family_id": base,
        "skin_tones": list(tones),
        "split": split,
    }


CONCEPTS = [
    *(_concept(f"train{i}", f"animal {i}", "train") for i in range(12)),
    *(_concept(f"new{i}", f"creature {i}", "test_new") for i in range(4)),
    _concept("twin", "creature 0", "test_new"),  # another picture under the same name
    _concept("hand", "hand", "train"),
    _concept("hand-light", "hand: light skin tone", "train", base="hand", tones=("light",)),
    _concept("hand-dark", "hand: dark skin tone", "test_comp", base="hand", tones=("dark",)),
    _concept("ear", "ear", "test_new"),
    _concept("ear-medium-dark", "ear: medium-dark skin tone", "test_new", base="ear", tones=("medium-dark",)),
    _concept("copy", "copy", "test_dup"),
]


def _emoji() -> list[Row]:
    return [
        {
            "image_id": f"{style}:{row['concept_id']}",
            "concept_id": row["concept_id"],
            "style": style,
            "image": picture(f"{style}:{row['concept_id']}"),
            "split": row["split"],
        }
        for style in STYLES
        for row in CONCEPTS
    ]


def _icons() -> list[Row]:
    splits = ["train"] * 6 + ["test"] * 5 + ["test_dup"]
    rows = [
        {"image_id": f"icon{i}", "name": f"icon {i}", "tags": [f"tag {i}", "标签"], "split": split}
        for i, split in enumerate(splits)
    ]
    rows.append({"image_id": "icon6b", "name": "icon 6", "tags": ["tag 6"], "split": "test"})
    return [{**row, "image": picture(str(row["image_id"]))} for row in rows]


def _photos() -> list[Row]:
    labels = [("Red_Apple", "train"), ("Red_Apple", "test_inst"), ("Kiwi", "test_inst"), ("Plum", "test_new")]
    grocery = [{"image_id": f"g{i}", "set": "grocery", "label": x, "split": s} for i, (x, s) in enumerate(labels)]
    rows = [*grocery, {"image_id": "c", "set": "clothing", "label": "hat", "split": "test_inst"}]
    return [{**row, "image": picture(str(row["image_id"]))} for row in rows]


def _nlvr() -> list[Row]:
    return [
        {
            "image_id": f"n{i}",
            "sentence": f"There are {i} circles",
            "label": i % 2 == 0,
            "image": picture(f"n{i}"),
            "split": "test" if i < 4 else "train",
        }
        for i in range(6)
    ]


def _tables() -> dict[str, list[Row]]:
    emoji = _emoji()
    return {
        "emoji_concepts": CONCEPTS,
        "emoji_images-00": emoji[: len(emoji) // 2],
        "emoji_images-01": emoji[len(emoji) // 2 :],
        "icons": _icons(),
        "openstax_figures-00": [
            {"image_id": f"f{i}", "alt": f"A graph of {i} lines.", "image": picture(f"f{i}"), "split": split}
            for i, split in enumerate(["train", "test", "test", "test", "test_dup"])
        ],
        "story_images": [
            {"image_sha": f"s{i}", "image": picture(f"s{i}"), "split": split}
            for i, split in enumerate(["test", "test", "train", "test_dup"])
        ],
        "story_pages": [
            {"image_id": f"p{i}", "sha": sha, "text_en": f"Page {i} of the tale.", "split": split}
            for i, (sha, split) in enumerate(
                [("s0", "test"), ("s0", "test"), ("s1", "test"), ("s2", "train"), ("s2", "test"), ("s3", "test")]
            )
        ],
        "photos": _photos(),
        "nlvr": _nlvr(),
    }


def write_table(folder: Path, name: str, rows: list[Row]) -> None:
    """Write rows as a parquet file."""
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")


@pytest.fixture(scope="session")
def make_data() -> Callable[[Path], Path]:
    """Returns a function that writes the data folder."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in _tables().items():
            write_table(folder, name, rows)
        return folder

    return write


@pytest.fixture(scope="session")
def data_path(make_data: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder, not to be changed."""
    return make_data(tmp_path_factory.mktemp("data") / "package")
