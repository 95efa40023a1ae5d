"""CIRR, FashionIQ and CIRCO in the schemas of their makers: what is right, who sees what, and the metrics by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.gallery import task_gallery
from mllm_embed.evaluation.runner import embed_all, overall, rank_tasks
from mllm_embed.evaluation.vector_store import VectorStore
from tests.library.evaluation.public import Angles, asked, build, draw, scored, seen, shown, write_json

pytestmark = pytest.mark.fast

# --- CIRR ---


def write_cirr(folder: Path, **changes: Any) -> None:
    names = [f"dev-{i}-img0" for i in range(8)]
    draw(folder / "img_raw" / "dev", *(f"{name}.png" for name in names))
    write_json(folder / "image_splits" / "split.rc2.val.json", {name: f"./dev/{name}.png" for name in names})
    rows = [
        {
            "pairid": pair,
            "reference": names[pair],
            "target_hard": names[pair + 1],
            "target_soft": {names[pair + 1]: 1.0},
            "caption": f"more of {pair} ",
            "img_set": {"id": pair, "members": names[pair : pair + 6], "reference_rank": 0, "target_rank": 1},
        }
        for pair in (0, 2)
    ]
    rows[0] |= changes
    write_json(folder / "captions" / "cap.rc2.val.json", rows)


def test_cirr_asks_with_a_picture_that_is_no_candidate(tmp_path: Path) -> None:
    write_cirr(tmp_path)
    tasks = build("cirr", tmp_path)
    assert list(tasks) == ["cirr", "cirr-subset"]
    query = "dev-0-img0.png + more of 0"
    for task in tasks.values():
        assert asked(task)[query] == ["dev-1-img0.png"]
    (own,) = (one for one in tasks["cirr-subset"].parts[0].queries if shown(one.item) == query)
    assert seen(tasks["cirr-subset"], own) == [f"dev-{i}-img0.png" for i in (1, 2, 3, 4, 5)]
    assert tasks["cirr"].parts[0].pool == 8


def test_cirr_recall_is_that_of_its_makers(tmp_path: Path) -> None:
    """Pair 0: the reference itself is nearest and does not count, pictures 7 and 6 are nearer than the target, but
    are not of the group. Pair 2: two of the group are nearer than the target.
    """
    write_cirr(tmp_path)
    degrees: dict[str, float] = {
        f"dev-{i}-img0.png": float(angle) for i, angle in enumerate((0, 3, 60, 66, 50, 55, 2, 1))
    }
    results = scored(
        build("cirr", tmp_path), degrees | {"dev-0-img0.png + more of 0": 0, "dev-2-img0.png + more of 2": 50}
    )
    assert results["cirr"]["scores"] == {"recall1": 0, "recall5": 1, "recall10": 1, "recall50": 1}
    assert results["cirr-subset"]["scores"] == {"recall1": 0.5, "recall2": 0.5, "recall3": 1}
    assert results["cirr"]["parts"]["all"]["candidates"] == [7, 7]
    assert results["cirr-subset"]["parts"]["all"]["candidates"] == [5, 5]


def test_what_is_shown_of_cirr_is_what_a_query_sees(tmp_path: Path) -> None:
    write_cirr(tmp_path)
    task = build("cirr", tmp_path)["cirr"]
    degrees = {f"dev-{i}-img0.png": 10.0 * i for i in range(8)}
    degrees |= {"dev-0-img0.png + more of 0": 0, "dev-2-img0.png + more of 2": 20}
    store = VectorStore(None, {})
    embed_all([task], Angles(degrees), store, lambda _done, _all: None)
    gallery = task_gallery(task, rank_tasks([task], store), store)
    asked_first = {strip.query.text: strip for strip in gallery.strips}["more of 0"]
    assert [hit.cosine for hit in asked_first.found] == pytest.approx(np.cos(np.radians([10, 20, 30, 40, 50])).tolist())
    assert asked_first.found[0].right
    assert gallery.histogram.high == pytest.approx(np.cos(np.radians(10)))  # the reference itself would be 1


def test_what_cirr_lacks_is_said_at_once(tmp_path: Path) -> None:
    write_cirr(tmp_path, target_hard="dev-99-img0", pairid=2)
    (tmp_path / "img_raw" / "dev" / "dev-3-img0.png").unlink()
    with pytest.raises(EvaluationError) as caught:
        build("cirr", tmp_path)
    message = str(caught.value)
    assert "pair 2 occurs twice" in message
    assert "no picture img_raw/dev/dev-3-img0.png" in message
    assert "2 names pictures that are no candidates: dev-99-img0" in message


def test_cirr_files_of_another_kind_are_named(tmp_path: Path) -> None:
    write_cirr(tmp_path)
    write_json(tmp_path / "image_splits" / "split.rc2.val.json", ["a"])
    (tmp_path / "captions" / "cap.rc2.val.json").write_text('[{"pairid":')
    with pytest.raises(EvaluationError) as caught:
        build("cirr", tmp_path)
    assert "split.rc2.val.json is no object of strings" in str(caught.value)
    assert "cap.rc2.val.json cannot be read" in str(caught.value)


# --- FashionIQ ---


def write_fashioniq(folder: Path) -> None:
    for kind in ("dress", "shirt", "toptee"):
        names = [f"{kind}{i:02}" for i in range(60)]
        draw(folder / "images", *(f"{name}.png" for name in names[:30]), *(f"{name}.jpg" for name in names[30:]))
        write_json(folder / "image_splits" / f"split.{kind}.val.json", names)
        rows = [{"candidate": names[0], "target": names[i], "captions": [f"is {i}.", " shorter "]} for i in (5, 20, 55)]
        write_json(folder / "captions" / f"cap.{kind}.val.json", rows)


def test_fashioniq_recall_per_category(tmp_path: Path) -> None:
    """Pictures lie in a fan, the queries at its beginning: what is asked for stands at 6, 21 and 56 of 60."""
    write_fashioniq(tmp_path)
    tasks = build("fashioniq", tmp_path)
    assert list(tasks) == ["fashioniq-dress", "fashioniq-shirt", "fashioniq-toptee"]
    assert asked(tasks["fashioniq-dress"])["dress00.png + is 5 and shorter"] == ["dress05.png"]
    assert asked(tasks["fashioniq-dress"])["dress00.png + is 55 and shorter"] == ["dress55.jpg"]
    degrees: dict[str, float] = {}
    for kind in ("dress", "shirt", "toptee"):
        degrees |= {f"{kind}{i:02}.{'png' if i < 30 else 'jpg'}": float(i) for i in range(60)}
        degrees |= {f"{kind}00.png + is {i} and shorter": -1.0 for i in (5, 20, 55)}
    results = scored(tasks, degrees)
    third = pytest.approx(1 / 3, abs=1e-6)
    assert results["fashioniq-shirt"]["scores"] == {"recall10": third, "recall50": pytest.approx(2 / 3, abs=1e-6)}
    assert overall(results)["scores"] == {"recall10": third, "recall50": pytest.approx(2 / 3, abs=1e-6)}


def test_what_fashioniq_lacks_is_said_at_once(tmp_path: Path) -> None:
    write_fashioniq(tmp_path)
    (tmp_path / "images" / "dress03.png").unlink()
    (tmp_path / "captions" / "cap.shirt.val.json").unlink()
    write_json(tmp_path / "image_splits" / "split.toptee.val.json", ["toptee00", "toptee00"])
    with pytest.raises(EvaluationError) as caught:
        build("fashioniq", tmp_path)
    message = str(caught.value)
    assert "no picture images/dress03.jpg" in message
    assert "no file captions/cap.shirt.val.json" in message
    assert "toptee picture toptee00 occurs twice" in message
    assert "toptee names pictures that are no candidates: toptee05" in message


# --- CIRCO ---


def write_circo(folder: Path) -> None:
    info: list[dict[str, Any]] = [{"id": i, "file_name": f"{i:012}.jpg", "license": 1} for i in range(12)]
    root = folder / "COCO2017_unlabeled"
    write_json(
        root / "annotations" / "image_info_unlabeled2017.json", {"info": {}, "licenses": [{"id": 1}], "images": info}
    )
    draw(root / "unlabeled2017", *(one["file_name"] for one in info))
    rows = [
        {
            "reference_img_id": 0,
            "target_img_id": 2,
            "relative_caption": "has two dogs",
            "shared_concept": "a dog",
            "gt_img_ids": [2, 4, 9],
            "id": 0,
            "semantic_aspects": ["cardinality", "addition"],
        },
        {"reference_img_id": 1, "relative_caption": "is red", "gt_img_ids": [1], "id": 1, "semantic_aspects": []},
    ]
    write_json(folder / "annotations" / "val.json", rows)


def test_circo_average_precision_is_that_of_its_makers(tmp_path: Path) -> None:
    """Pictures in a fan: for query 0 the right ones stand at 3, 5 and 10, for query 1 at 1.

    mAP@5 of query 0: (1/3 + 2/5) / min(3, 5); at 10: (1/3 + 2/5 + 3/10) / 3. The reference stays a candidate.
    """
    write_circo(tmp_path)
    tasks = build("circo", tmp_path)
    assert tasks["circo"].parts[0].pool == 12
    assert {name: len(right) for name, right in asked(tasks["circo"]).items()} == {
        "000000000000.jpg + has two dogs": 3,
        "000000000001.jpg + is red": 1,
    }
    degrees = {f"{i:012}.jpg": float(5 * i) for i in range(12)}
    degrees |= {"000000000000.jpg + has two dogs": -1.0, "000000000001.jpg + is red": 5.0}
    result = scored(tasks, degrees)["circo"]
    at_5, at_10 = (1 / 3 + 2 / 5) / 3, (1 / 3 + 2 / 5 + 3 / 10) / 3
    assert result["metric"] == "map5"
    assert result["scores"] == {
        name: pytest.approx((value + 1) / 2, abs=1e-6)
        for name, value in {"map5": at_5, "map10": at_10, "map25": at_10, "map50": at_10}.items()
    }
    assert result["slices"]["cardinality"]["map"] == pytest.approx(at_10, abs=1e-6)
    assert result["parts"]["all"]["slices"]["cardinality"]["map5"] == pytest.approx(at_5, abs=1e-6)


def test_what_circo_lacks_is_said_at_once(tmp_path: Path) -> None:
    write_circo(tmp_path)
    (tmp_path / "COCO2017_unlabeled" / "unlabeled2017" / "000000000007.jpg").unlink()
    rows = [
        {"id": 3, "reference_img_id": 88, "relative_caption": "x", "gt_img_ids": [1, 99]},
        {"id": 3, "reference_img_id": 1, "relative_caption": "x"},
    ]
    write_json(tmp_path / "annotations" / "val.json", rows)
    with pytest.raises(EvaluationError) as caught:
        build("circo", tmp_path)
    message = str(caught.value)
    assert "no picture COCO2017_unlabeled/unlabeled2017/000000000007.jpg" in message
    assert "annotations/val.json, record 1 lacks gt_img_ids" in message
    assert "query 3 names pictures that are no candidates: 88, 99" in message
