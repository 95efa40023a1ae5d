"""A small data folder with the columns of the real one; its pictures are drawn here."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import EvalTask
from mllm_embed.evaluation.mini_mmeb import build_tasks
from mllm_embed.evaluation.pools import Selection
from tests.library.evaluation.shown import Names, picture_names

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


def strip(name: str, frames: int = 6) -> bytes:
    """Draw the frames of a clip side by side: one square that moves."""
    digest = hashlib.sha256(name.encode()).digest()
    image = PIL.Image.new("RGBA", (16 * frames, 16), (0, 0, 0, 0))
    for frame in range(frames):
        image.paste(tuple(digest[:3]), (16 * frame + frame, 4, 16 * frame + frame + 8, 12))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


NAMES = {
    "new1": {"de": "creature 1 auf Deutsch", "tlh": "creature 1"},
    "train5": {"de": "creature 2"},  # in German this one has the name of another
}


def _concept(
    concept_id: str, label: str, split: str, *, base: str = "", tones: tuple[str, ...] = (), gender: str = ""
) -> Row:
    base = base or concept_id
    people = tones or gender or base in ("hand", "ear")
    return {
        "concept_id": concept_id,
        "label_en": label,
        "tags_en": [] if "ear" in label else [base, "sign"],
        "group": "people-body" if people else "animals-nature",
        "subgroup": "person-role" if gender else "hand-part" if people else None if "animal" in label else "animal-new",
        "base_id": base,
        "family_id": "cook" if gender else base,
        "skin_tones": list(tones),
        "gender": gender,
        "names": json.dumps(NAMES.get(concept_id, {"de": label})),
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
    _concept("man-cook", "man cook", "train", gender="man"),
    _concept("woman-cook", "woman cook", "test_comp", gender="woman"),
    _concept("man-cook-right", "man cook facing right", "test_new", gender="man"),
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
    clothing = [("c", "hat", "test_inst"), ("c2", "t-shirt", "train"), ("c3", "t-shirt", "test_inst")]
    rows = [*grocery, *({"image_id": i, "set": "clothing", "label": x, "split": s} for i, x, s in clothing)]
    return [{**row, "image": picture(str(row["image_id"]))} for row in rows]


SCENE: list[list[Row]] = [
    [{"type": "circle", "color": "Yellow", "size": 10, "x_loc": 20, "y_loc": 30}],
    [{"type": "square", "color": "#0099ff", "size": 20, "x_loc": 40, "y_loc": 50}] * 2,
    [
        {"type": "circle", "color": "Yellow", "size": 10, "x_loc": 60, "y_loc": 70},
        {"type": "triangle", "color": "Black", "size": 30, "x_loc": 5, "y_loc": 5},
    ],
]
"""A yellow circle left and right, two equal blue squares in the middle, a black triangle right."""


def nlvr_scene(seed: int) -> bytes:
    """Draw the bounding boxes of `SCENE`; the seed changes a corner that no object covers."""
    image = PIL.Image.new("RGB", (400, 100), "lightgrey")
    for box, objects in enumerate(SCENE):
        for one in objects:
            left, top, size = 150 * box + one["x_loc"], one["y_loc"], one["size"]
            image.paste(one["color"], (left, top, left + size, top + size))
    image.putpixel((0, 0), (seed, 0, 0))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _nlvr() -> list[Row]:
    return [
        {
            "image_id": f"n{i}",
            "sentence": f"There are {i} circles",
            "label": i % 2 == 0,
            "image": nlvr_scene(i),
            "structured": json.dumps(SCENE) if i < 3 else "",
            "split": "test" if i < 4 else "train",
        }
        for i in range(6)
    ]


def _figures() -> list[Row]:
    kinds = ("graph", "graph", "photo", "other", "map")
    return [
        {
            "image_id": f"f{i}",
            "alt": f"A graph of {i} lines.",
            "caption": f"Growth of {i} kinds." if i != 2 else None,
            "kind": kind,
            "image": picture(f"f{i}"),
            "split": split,
        }
        for i, (kind, split) in enumerate(zip(kinds, ["train", "test", "test", "test", "test_dup"], strict=True))
    ]


def _charts() -> list[Row]:
    fields = [["bar"], ["point", "line"], ["area"]]
    return [
        {
            "image_id": f"v{i}",
            "marks": marks,
            "encodings": json.dumps([["x", "month", f"date_{i}", "ordinal"], ["y", "count", "", ""]]),
            "image": picture(f"v{i}"),
            "split": "train" if i == 2 else "test",
        }
        for i, marks in enumerate(fields)
    ]


def _clips() -> list[Row]:
    """Two characters; of the first also the same clip in other trousers, and one that differs where nobody sees it."""
    looks = [(1, "base", "red pants"), (1, "edit", "teal pants"), (2, "base", "red pants"), (2, "edit", "red pants")]
    return [
        {
            "clip_id": clip_id,  # in hash order two other clips lie between the two of one strip
            "character": character,
            "variant": variant,
            "action": "walking",
            "direction": "facing left",
            "caption": f"a {'man' if character == 1 else 'woman'} with dark skin, wearing {look}, walking, facing left",
            "frames": 6,
            "strip": strip(f"{character} {look}"),
            "split": "test",
        }
        for clip_id, (character, variant, look) in zip(("k3", "k1", "k2", "k0"), looks, strict=True)
    ] + [
        {
            "clip_id": "k9",
            "character": 9,
            "variant": "base",
            "action": "slashing",
            "direction": "",
            "caption": "a skeleton, wearing jacket, slashing",
            "frames": 6,
            "strip": strip("9"),
            "split": "train",
        }
    ]


def _story_pages() -> list[Row]:
    splits = [("s0", "test"), ("s0", "test"), ("s1", "test"), ("s2", "train"), ("s2", "test"), ("s3", "test")]
    splits += [("s4", "test")] * 48  # a language counts from 50 pages on
    return [
        {
            "image_id": f"p{i}",
            "sha": sha,
            "text_en": f"Page {i} of the tale.",
            "texts": json.dumps(
                {"en": f"Page {i} of the tale.", "de": f"Seite {i} der  Geschichte."}
                | ({"sw": "Ukurasa"} if i == 0 else {})
            ),
            "split": split,
        }
        for i, (sha, split) in enumerate(splits)
    ]


def _tables() -> dict[str, list[Row]]:
    emoji = _emoji()
    return {
        "emoji_concepts": CONCEPTS,
        "emoji_images-00": emoji[: len(emoji) // 2],
        "emoji_images-01": emoji[len(emoji) // 2 :],
        "icons": _icons(),
        "openstax_figures-00": _figures(),
        "openstax_docs_hires": [
            {"image_id": f"f{i}", "image": picture(f"page of f{i}"), "split": "train" if i == 0 else "test"}
            for i in (0, 1, 4)
        ],
        "charts_vegalite": _charts(),
        "lpc_clips": _clips(),
        "story_images": [
            {"image_sha": f"s{i}", "image": picture(f"s{i}"), "split": split}
            for i, split in enumerate(["test", "test", "train", "test_dup", "test"])
        ],
        "story_pages": _story_pages(),
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
def names(data_path: Path) -> Names:
    """Picture bytes -> id of its row."""
    return picture_names(data_path)


@pytest.fixture(scope="session")
def tasks(data_path: Path) -> dict[str, EvalTask]:
    """All tasks on the data folder, by name."""
    return {task.name: task for task in build_tasks(DataFolder(data_path), Selection())}


@pytest.fixture(scope="session")
def data_path(make_data: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder, not to be changed."""
    return make_data(tmp_path_factory.mktemp("data") / "package")
