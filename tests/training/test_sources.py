"""Licence and split rules of the data package, on a package that the test writes."""

import io
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_embed_training.sources import DataNotFound, Package, data_folder

pytestmark = pytest.mark.fast


def png() -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(stream, "PNG")
    return stream.getvalue()


def concept(
    concept_id: str, base: str, *, tones: list[str], gender: str = "", split: str = "train"
) -> dict[str, object]:
    return {
        "concept_id": concept_id,
        "base_id": base,
        "family_id": "wave",
        "label_en": concept_id,
        "skin_tones": tones,
        "gender": gender,
        "tags_en": ["hand"],
        "group": "people-body",
        "subgroup": None,
        "names": "{}",
        "split": split,
    }


def image(concept_id: str, style: str, licence: str = "MIT", split: str = "train") -> dict[str, object]:
    return {
        "image_id": f"{style}:{concept_id}",
        "concept_id": concept_id,
        "style": style,
        "image": png(),
        "license": licence,
        "split": split,
    }


@pytest.fixture
def package(tmp_path: Path) -> Package:
    concepts = [
        concept("wave", "wave", tones=[]),
        concept("wave-dark", "wave", tones=["medium-dark"]),
        concept("man", "man", tones=[], gender="man"),
        concept("woman", "woman", tones=[], gender="woman"),
        concept("new", "new", tones=[], split="test_new"),
    ]
    images = [
        image("wave", "noto"),
        image("wave", "fluent-3d"),
        image("wave-dark", "noto"),
        image("man", "noto"),
        image("woman", "noto"),
        image("wave", "openmoji-color", licence="CC-BY-SA-4.0"),
        image("new", "noto", split="test_new"),
        image("wave", "fluent-flat", split="test_dup"),
    ]
    pq.write_table(pa.Table.from_pylist(concepts), tmp_path / "emoji_concepts.parquet")
    pq.write_table(pa.Table.from_pylist(images), tmp_path / "emoji_images-00.parquet")
    return Package(tmp_path)


def test_share_alike_and_held_out_rows_are_never_trained_on(package: Package) -> None:
    ids = {row["image_id"] for row in package.emoji()}
    assert ids == {"noto:wave", "fluent-3d:wave", "noto:wave-dark", "noto:man", "noto:woman"}


def test_styles_of_one_concept_are_grouped(package: Package) -> None:
    assert [{row["style"] for row in group} for group in package.emoji_groups()] == [{"noto", "fluent-3d"}]


def test_edits_change_one_attribute_within_a_style(package: Package) -> None:
    edits = {(e["before"]["image_id"], e["edit"], e["after"]["image_id"]) for e in package.emoji_edits()}
    assert edits == {
        ("noto:wave", "the same, with medium dark skin tone", "noto:wave-dark"),
        ("noto:man", "the same, as a woman", "noto:woman"),
        ("noto:woman", "the same, as a man", "noto:man"),
    }


def test_an_edit_knows_what_other_edits_make_of_the_picture(tmp_path: Path) -> None:
    concepts = [
        {"concept_id": name, "base_id": "wave", "skin_tones": tones, "gender": None, "family_id": "wave"}
        for name, tones in (("wave", []), ("light", ["light"]), ("dark", ["dark"]), ("both", ["light", "dark"]))
    ]
    images = [
        {"image_id": f"{style}:{concept['concept_id']}", "concept_id": concept["concept_id"], "style": style}
        for style in ("noto", "fluent-3d")
        for concept in concepts
    ]
    for name, rows in (("concepts", concepts), ("images-00", images)):
        pq.write_table(
            pa.Table.from_pylist([{**row, "split": "train"} for row in rows]), tmp_path / f"emoji_{name}.parquet"
        )
    found = {(e["after"]["image_id"], *(o["image_id"] for o in e["others"])) for e in Package(tmp_path).emoji_edits()}
    assert found == {
        ("noto:light", "noto:dark"),
        ("noto:dark", "noto:light"),
        ("fluent-3d:light", "fluent-3d:dark"),
        ("fluent-3d:dark", "fluent-3d:light"),
    }


def test_absent_data_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLLM_EMBED_DATA", raising=False)
    with pytest.raises(DataNotFound, match="set MLLM_EMBED_DATA"):
        data_folder(None)
    with pytest.raises(DataNotFound, match=r"has no icons\.parquet"):
        Package(tmp_path / "empty").rows("icons.parquet")


def test_a_figure_credited_share_alike_is_not_trained_on(tmp_path: Path) -> None:
    credited = {
        "own": None,
        "by": "(credit: someone / CC BY 2.0)",
        "spelled": "(credit: someone/ Flickr/ Attribution-Share Alike 2.0 Generic)",
        "short": "(credit: someone, CC BY-SA IGO 3.0)",
    }
    rows = [
        {"image_id": name, "alt": "a", "caption": "b", "credit": credit, "license": "CC-BY-4.0", "split": "train"}
        for name, credit in credited.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "openstax_figures-00.parquet")
    assert [row["image_id"] for row in Package(tmp_path).figures()] == ["own", "by"]
