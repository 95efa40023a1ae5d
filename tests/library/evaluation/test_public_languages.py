"""XTD10 and WIT: a part per language, the same pictures or each language's own."""

from pathlib import Path
from typing import Any

import pytest

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.public_languages import XTD
from tests.library.evaluation.public import asked, build, draw, scored, stored, write_parquet

pytestmark = pytest.mark.fast

# --- XTD10 ---

PICTURES = [f"COCO_{'train' if i < 8 else 'val'}2014_{i:012}.jpg" for i in range(12)]


def write_xtd(folder: Path) -> None:
    for name in PICTURES:
        draw(folder / "images" / name.split("_")[1], name)
    (folder / "XTD10").mkdir()
    (folder / "XTD10" / "test_image_names.txt").write_text("\n".join(PICTURES) + "\n")
    for language, place in XTD.items():
        lines = [f"{language} {i}\u2028 more " for i in range(12)]
        if language == "de":
            lines[1] = lines[0]
        (folder / place).mkdir(exist_ok=True)
        (folder / place / f"test_1kcaptions_{language}.txt").write_text("\n".join(lines) + "\n")


def test_eleven_languages_ask_for_the_same_pictures(tmp_path: Path) -> None:
    write_xtd(tmp_path)
    task = build("xtd", tmp_path)["xtd-t2i"]
    assert sorted(part.name for part in task.parts) == sorted(
        ["de", "en", "es", "fr", "it", "jp", "ko", "pl", "ru", "tr", "zh"]
    )
    places = {part.name: place for place, part in enumerate(task.parts)}
    assert asked(task, places["jp"])["jp 3\u2028 more"] == [PICTURES[3]]
    assert asked(task, places["de"])["de 0\u2028 more"] == PICTURES[:2]  # both pictures have this caption
    assert all(part.candidates == task.parts[0].candidates for part in task.parts)


def test_xtd_recall_per_language_and_how_much_ranks_vary(tmp_path: Path) -> None:
    """English finds every picture first; Korean asks at the beginning of the fan, so picture i stands at i + 1."""
    write_xtd(tmp_path)
    tasks = build("xtd", tmp_path)
    degrees = {name: 5.0 * i for i, name in enumerate(PICTURES)}
    for language in XTD:
        degrees |= {f"{language} {i}\u2028 more": -1.0 if language == "ko" else 5.0 * i for i in range(12)}
    result = scored(tasks, degrees)["xtd-t2i"]
    by_language = {name: part["slices"]["test"] for name, part in result["parts"].items()}
    assert by_language["en"]["recall10"] == 1
    assert by_language["ko"]["recall10"] == pytest.approx(10 / 12, abs=1e-6)
    assert result["scores"]["hit10"] == pytest.approx((10 + 10 / 12) / 11, abs=1e-6)
    # Picture i has the ranks 1 (ten languages) and i + 1 (Korean): a variance of i² x 10 / 121. Of the two German
    # captions that are equal, both pictures stand first and second.
    variance = sum(i**2 for i in range(12)) / 12 * 10 / 121
    assert result["instances"]["mean_rank_variance"] == pytest.approx(variance, abs=1e-5)
    assert result["instances"]["ways"] == 11


def test_a_limit_asks_for_the_same_pictures_in_every_language(tmp_path: Path) -> None:
    write_xtd(tmp_path)
    task = build("xtd", tmp_path, limit=3)["xtd-t2i"]
    instances = {tuple(query.instance for query in part.queries) for part in task.parts}
    assert len(instances) == 1
    assert [len(part.candidates) for part in task.parts] == [12] * 11


def test_what_xtd_lacks_is_said_at_once(tmp_path: Path) -> None:
    write_xtd(tmp_path)
    (tmp_path / "STAIR" / "test_1kcaptions_jp.txt").unlink()
    (tmp_path / "MIC" / "test_1kcaptions_fr.txt").write_text("one\ntwo\n")
    (tmp_path / "images" / "val2014" / PICTURES[9]).unlink()
    with pytest.raises(EvaluationError) as caught:
        build("xtd", tmp_path)
    message = str(caught.value)
    assert "no file STAIR/test_1kcaptions_jp.txt" in message
    assert "captions in fr must be 12, a line for each picture, but are 2" in message
    assert f"no picture images/val2014/{PICTURES[9]}" in message


# --- WIT ---


def write_wit(folder: Path) -> None:
    for language, names in {"ar": "abc", "en": "ABCD"}.items():
        rows = [
            {"image": stored(name), "image_id": name, "captions": [f"{language} {name}", f"{language} {name} too"]}
            for name in names
        ]
        write_parquet(folder / "data" / f"{language}-00000-of-00001.parquet", rows)


def test_each_language_of_wit_has_its_own_pictures(tmp_path: Path) -> None:
    write_wit(tmp_path)
    tasks = build("wit", tmp_path)
    assert list(tasks) == ["wit-t2i", "wit-i2t"]
    assert [(part.name, part.pool) for part in tasks["wit-t2i"].parts] == [("ar", 3), ("en", 4)]
    assert asked(tasks["wit-t2i"], 1)["en B too"] == ["B"]
    assert asked(tasks["wit-i2t"])["c"] == ["ar c", "ar c too"]


def test_wit_numbers_by_hand(tmp_path: Path) -> None:
    """Arabic captions find their picture; of the English ones half point at the next picture."""
    write_wit(tmp_path)
    degrees = {name: 20.0 * i for i, name in enumerate("abc")} | {name: 20.0 * i for i, name in enumerate("ABCD")}
    degrees |= {f"ar {name}{more}": 20.0 * i for i, name in enumerate("abc") for more in ("", " too")}
    degrees |= {f"en {name}": 20.0 * i for i, name in enumerate("ABCD")}
    degrees |= {f"en {name} too": 20.0 * i + 15 for i, name in enumerate("ABCD")}
    results = scored(build("wit", tmp_path), degrees)
    found = results["wit-t2i"]
    assert found["parts"]["ar"]["slices"]["test"]["hit1"] == 1
    # The last picture is first even so. Three of eight captions find their picture second: nDCG of 1 / log2 3.
    assert found["parts"]["en"]["slices"]["test"]["hit1"] == pytest.approx(5 / 8)
    assert found["scores"]["ndcg10"] == pytest.approx((1 + (5 + 3 / 1.5849625007211562) / 8) / 2, abs=1e-6)
    assert results["wit-i2t"]["scores"]["hit1"] == 1


def test_what_wit_lacks_is_said_at_once(tmp_path: Path) -> None:
    write_wit(tmp_path)
    rows: list[dict[str, Any]] = [
        {"image": None, "image_id": "x", "captions": ["a"]},
        {"image": stored("a"), "image_id": "x", "captions": None},
    ]
    write_parquet(tmp_path / "data" / "bg-00000-of-00001.parquet", [*rows, rows[0] | {"image": stored("b")}] * 2)
    (tmp_path / "data" / "da-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    write_parquet(tmp_path / "data" / "el-00000-of-00001.parquet", [{"image": stored("a"), "id": "x"}])
    with pytest.raises(EvaluationError) as caught:
        build("wit", tmp_path)
    message = str(caught.value)
    assert "bg-00000-of-00001.parquet, record 0 lacks image" in message
    assert "bg-00000-of-00001.parquet, record 1 lacks captions" in message
    assert "bg picture x occurs twice" in message
    assert "da-00000-of-00001.parquet cannot be read" in message
    assert "el-00000-of-00001.parquet has no image_id, captions" in message
