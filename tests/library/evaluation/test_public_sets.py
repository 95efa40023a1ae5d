"""Public sets in the schemas of their makers, each with a few rows that are written here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.mmeb import META_TASKS, SLICE_IN, SLICE_OUT
from mllm_embed.evaluation.public_compositional import SUGARCREPE
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_sets import public_tasks
from mllm_embed.evaluation.runner import overall
from mllm_embed.types import Image
from tests.library.evaluation.public import (
    asked,
    build,
    draw,
    scored,
    seen,
    shown,
    stored,
    write_json,
    write_lines,
    write_parquet,
)

pytestmark = pytest.mark.fast


# --- MMEB ---


def write_mmeb(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    write_parquet(folder / name / "test-00000-of-00001.parquet", rows)


@pytest.fixture
def mmeb(tmp_path: Path) -> Path:
    draw(tmp_path / "images", "A/1.jpg", "A/2.jpg")
    classes = [f"class {i}" for i in range(6)]
    write_mmeb(
        tmp_path,
        "ImageNet-1K",
        [
            {
                "qry_inst": "<|image_1|> Represent the given image for classification",
                "qry_text": "",
                "qry_img_path": f"A/{i}.jpg",
                "tgt_inst": "",
                "tgt_text": [classes[i], *(one for one in classes if one != classes[i])],
                "tgt_img_path": [""] * 6,
            }
            for i in (1, 2)
        ],
    )
    write_mmeb(
        tmp_path,
        "FashionIQ",
        [
            {
                "qry_inst": "<|image_1|> Find an image to match the change:",
                "qry_text": "is red",
                "qry_img_path": "A/1.jpg",
                "tgt_inst": "<|image_1|> Represent the given image.",
                "tgt_text": ["", ""],
                "tgt_img_path": ["A/2.jpg", "A/1.jpg"],
            }
        ],
    )
    return tmp_path


def test_mmeb_knows_its_36_sets() -> None:
    assert len(META_TASKS) == 36
    counts = {meta: list(META_TASKS.values()).count(meta) for meta in dict.fromkeys(META_TASKS.values())}
    assert counts == {"classification": 10, "VQA": 10, "retrieval": 12, "grounding": 4}


def test_the_first_candidate_of_mmeb_is_right(mmeb: Path) -> None:
    tasks = build("mmeb", mmeb)
    assert list(tasks) == ["ImageNet-1K", "FashionIQ"]
    assert asked(tasks["ImageNet-1K"]) == {"1.jpg": ["class 1"], "2.jpg": ["class 2"]}
    assert asked(tasks["FashionIQ"]) == {"1.jpg + is red": ["2.jpg"]}


def test_mmeb_instructions_lose_the_placeholders_of_other_models(mmeb: Path) -> None:
    tasks = build("mmeb", mmeb)
    query = tasks["ImageNet-1K"].parts[0].queries[0]
    assert query.item.instruction == "Represent the given image for classification"
    assert tasks["ImageNet-1K"].parts[0].candidates[0].instruction is None
    assert tasks["FashionIQ"].parts[0].candidates[0].instruction == "Represent the given image."


def test_a_query_of_mmeb_sees_its_own_candidates_and_equal_ones_are_embedded_once(mmeb: Path) -> None:
    task = build("mmeb", mmeb)["ImageNet-1K"]
    assert len(task.parts[0].candidates) == 6
    for query in task.parts[0].queries:
        assert len(seen(task, query)) == 6


def test_mmeb_has_a_mean_in_and_out_of_distribution(mmeb: Path) -> None:
    """All that is red or the second picture points one way, all else another."""
    tasks = build("mmeb", mmeb)
    degrees = {"1.jpg": 90, "2.jpg": 0, "1.jpg + is red": 0} | {f"class {i}": 90 for i in range(6)}
    means = overall(scored(tasks, degrees))
    assert (means[SLICE_IN], means[SLICE_OUT]) == (0, 1)


def test_an_mmeb_folder_without_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no folder of an MMEB set, such as ImageNet-1K"):
        build("mmeb", tmp_path)


def test_everything_that_mmeb_lacks_is_said_at_once(mmeb: Path) -> None:
    (mmeb / "images" / "A" / "2.jpg").unlink()
    (mmeb / "ImageNet-1K" / "broken.parquet").write_bytes(b"PAR1 truncated")
    rows = [{"qry_text": "a", "qry_img_path": "", "tgt_text": ["b"]}]
    write_mmeb(mmeb, "FashionIQ", rows)
    with pytest.raises(EvaluationError) as caught:
        build("mmeb", mmeb)
    message = str(caught.value)
    assert "no picture images/A/2.jpg" in message
    assert "ImageNet-1K/broken.parquet cannot be read" in message
    assert "FashionIQ/test-00000-of-00001.parquet has no tgt_img_path" in message


def test_candidates_of_mmeb_without_content_or_partner_are_named(mmeb: Path) -> None:
    row = {"qry_text": "a", "qry_img_path": "", "tgt_text": ["", "b"], "tgt_img_path": ["", ""]}
    write_mmeb(mmeb, "ImageNet-1K", [row, row | {"tgt_text": ["b"]}])
    with pytest.raises(EvaluationError) as caught:
        build("mmeb", mmeb)
    message = str(caught.value)
    assert "ImageNet-1K: a query or candidate has neither text nor picture" in message
    assert "a picture path for each candidate, but one has 1 and 2" in message


def test_wanted_sets_of_mmeb_that_are_not_there_are_named(mmeb: Path) -> None:
    assert list(build("mmeb", mmeb, only=["FashionIQ"])) == ["FashionIQ"]
    with pytest.raises(EvaluationError, match="no OVEN, where OVEN should be"):
        build("mmeb", mmeb, only=["FashionIQ", "OVEN"])
    with pytest.raises(EvaluationError, match="has no task oven, but FashionIQ"):
        build("mmeb", mmeb, only=["FashionIQ", "oven"])


def test_absent_sets_of_mmeb_are_noted(mmeb: Path) -> None:
    folder = PublicFolder(mmeb)
    public_tasks("mmeb", folder, None)
    assert len(folder.absent) == 34
    assert "FashionIQ" not in folder.absent


# --- captions ---


def write_karpathy(folder: Path, name: str, filepath: str | None) -> None:
    images = [
        {
            "filename": f"{i}.jpg",
            "split": "train" if i == 4 else "test",
            "sentences": [{"raw": f"caption {i} {j}"} for j in range(2)] + [{"raw": " a  dog "}] * (i < 2),
            **({"filepath": filepath} if filepath else {}),
        }
        for i in range(5)
    ]
    (folder / name).write_text(json.dumps({"images": images, "dataset": "x"}))
    draw(folder / "images" / (filepath or ""), *(f"{i}.jpg" for i in range(4)))


@pytest.mark.parametrize(
    ("suite", "file", "filepath"),
    [("flickr30k", "dataset_flickr30k.json", None), ("coco", "dataset_coco.json", "val2014")],
)
def test_captions_and_pictures_find_each_other(tmp_path: Path, suite: str, file: str, filepath: str | None) -> None:
    write_karpathy(tmp_path, file, filepath)
    tasks = build(suite, tmp_path)
    assert list(tasks) == [f"{suite}-t2i", f"{suite}-i2t"]
    to_image = asked(tasks[f"{suite}-t2i"])
    assert len(to_image) == 9  # eight captions of their own, and one that two pictures share
    assert to_image["a dog"] == ["0.jpg", "1.jpg"]
    assert asked(tasks[f"{suite}-i2t"])["0.jpg"] == ["caption 0 0", "caption 0 1", "a dog"]
    assert tasks[f"{suite}-t2i"].parts[0].pool == 4  # the split "test" only
    assert tasks[f"{suite}-t2i"].metrics == ("hit1", "hit5", "hit10")


def test_a_limit_cuts_queries_and_no_candidate(tmp_path: Path) -> None:
    write_karpathy(tmp_path, "dataset_flickr30k.json", None)
    few, all_of_them = build("flickr30k", tmp_path, limit=2), build("flickr30k", tmp_path)
    for name, task in few.items():
        assert len(task.parts[0].queries) == 2
        assert task.parts[0].candidates == all_of_them[name].parts[0].candidates
        assert asked(task).items() <= asked(all_of_them[name]).items()


def test_long_captions_of_urban1k(tmp_path: Path) -> None:
    (tmp_path / "caption").mkdir()
    for i in range(5):
        (tmp_path / "caption" / f"{i}.txt").write_text(f"A long\ncaption {i}.")
    draw(tmp_path / "image", *(f"{i}.jpg" for i in range(4)))
    with pytest.raises(EvaluationError, match=r"no picture image/4\.jpg"):
        build("urban1k", tmp_path)
    draw(tmp_path / "image", "4.jpg")
    assert asked(build("urban1k", tmp_path)["urban1k-t2i"])["A long caption 3."] == ["3.jpg"]


def test_long_captions_of_sharegpt4v(tmp_path: Path) -> None:
    """The second turn is the caption, and only the first 1,000 rows are the test set."""
    draw(tmp_path / "coco", "a.jpg", "b.jpg")
    rows = [
        {"id": i, "image": f"coco/{name}", "conversations": [{"from": "human", "value": "Describe"}, {"value": text}]}
        for i, (name, text) in enumerate([("a.jpg", "Long\na."), ("b.jpg", "Long b.")])
    ]
    file = tmp_path / "share-captioner_coco_lcs_sam_1246k_1107.json"
    later = [rows[0] | {"image": f"coco/{i}.jpg"} for i in range(1000)]
    write_json(file, rows)
    tasks = build("sharegpt4v", tmp_path)
    assert asked(tasks["sharegpt4v-i2t"]) == {"a.jpg": ["Long a."], "b.jpg": ["Long b."]}
    write_json(file, [*rows, *later])
    with pytest.raises(EvaluationError, match=r"no picture coco/0\.jpg; .*; and 978 more"):
        build("sharegpt4v", tmp_path)
    write_json(file, [rows[0], rows[1] | {"conversations": []}, rows[0]])
    with pytest.raises(EvaluationError) as caught:
        build("sharegpt4v", tmp_path)
    assert "picture coco/a.jpg occurs twice" in str(caught.value)
    assert "coco/b.jpg has no caption" in str(caught.value)


# --- compositional ---


def test_sugarcrepe_chooses_between_two_captions(tmp_path: Path) -> None:
    draw(tmp_path / "images", "a.jpg", "b.jpg")
    rows = {
        str(i): {"filename": name, "caption": f"red {name}", "negative_caption": f"blue {name}"}
        for i, name in enumerate(("a.jpg", "b.jpg"))
    }
    for kind in SUGARCREPE:
        (tmp_path / f"{kind}.json").write_text(json.dumps(rows))
    tasks = build("sugarcrepe", tmp_path)
    assert len(tasks) == 7
    task = tasks["sugarcrepe-swap_obj"]
    assert asked(task) == {"a.jpg": ["red a.jpg"], "b.jpg": ["red b.jpg"]}
    for query in task.parts[0].queries:
        name = shown(query.item)
        assert seen(task, query) == [f"red {name}", f"blue {name}"]


def test_winoground_scores_are_those_of_its_makers(tmp_path: Path) -> None:
    names = [f"ex_{i}_img_{j}" for i in range(2) for j in (0, 1)]
    draw(tmp_path / "images", *(f"{name}.png" for name in names))
    lines = [
        {
            "id": i,
            "image_0": f"ex_{i}_img_0",
            "image_1": f"ex_{i}_img_1",
            "caption_0": f"{i} plant",
            "caption_1": f"{i} lamp",
        }
        for i in range(2)
    ]
    write_lines(tmp_path / "examples.jsonl", lines)
    # Example 0 is told apart both ways. In example 1 both pictures prefer their caption, both captions picture 1.
    degrees = {"0 plant": 0, "ex_0_img_0.png": 0, "0 lamp": 90, "ex_0_img_1.png": 90}
    degrees |= {"1 plant": 0, "ex_1_img_0.png": -40, "1 lamp": 50, "ex_1_img_1.png": 26}
    results = scored(build("winoground", tmp_path), degrees)
    found = {name: result["instances"]["all_hit1"] for name, result in results.items()}
    assert found == {"winoground-text": 1, "winoground-image": 0.5, "winoground-group": 0.5}


# --- documents ---


def write_vidore(folder: Path) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = {
        "queries": [{"query-id": i, "query": f"question {i}"} for i in range(3)],
        "corpus": [{"corpus-id": i, "image": stored(f"page {i}")} for i in range(5)],
        "qrels": [
            {"query-id": 0, "corpus-id": 3, "score": 2},
            {"query-id": 0, "corpus-id": 4, "score": 1},
            {"query-id": 1, "corpus-id": 0, "score": 0},
            {"query-id": 2, "corpus-id": 1, "score": 1},
        ],
    }
    for kind, rows in tables.items():
        write_parquet(folder / kind / "test-00000.parquet", rows)
    return tables


def test_vidore_pages_may_be_right_together(tmp_path: Path) -> None:
    folder = tmp_path / "vidore_x"
    tables = write_vidore(folder)
    (task,) = build("vidore", folder).values()
    (part,) = task.parts
    assert (task.name, part.pool) == ("vidore_x", 5)
    assert {shown(query.item): query.truths for query in part.queries} == {"question 0": (3, 4), "question 2": (1,)}
    assert isinstance(part.candidates[0].content[0], Image)
    write_parquet(folder / "corpus" / "test-00001.parquet", tables["corpus"][:1])
    with pytest.raises(EvaluationError, match="page 0 occurs twice"):
        build("vidore", folder)


def test_vidore_is_scored_by_how_relevant_pages_are(tmp_path: Path) -> None:
    """Page 4 of relevance 1 comes first, page 3 of relevance 2 second; question 2 finds its page first."""
    write_vidore(tmp_path / "vidore_x")
    degrees = {f"page {i}": float(place) for i, place in enumerate((80, 40, 70, 20, 10))}
    results = scored(build("vidore", tmp_path / "vidore_x"), degrees | {"question 0": 0, "question 2": 40})
    log = 1.5849625007211562  # log2 3
    expected = ((1 + 2 / log) / (2 + 1 / log) + 1) / 2
    assert results["vidore_x"]["scores"] == {"ndcg5": pytest.approx(expected, abs=1e-6), "hit1": 1}
    assert results["vidore_x"]["metric"] == "ndcg5"


def test_what_vidore_lacks_is_said_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "vidore_x"
    tables = write_vidore(folder)
    corpus = [
        row | {"image": {"bytes": None, "path": "gone.png"}} if row["corpus-id"] == 2 else row
        for row in tables["corpus"]
    ]
    write_parquet(folder / "corpus" / "test-00000.parquet", corpus)
    judged = [*tables["qrels"], {"query-id": 2, "corpus-id": 77, "score": 1}]
    write_parquet(folder / "qrels" / "test-00000.parquet", judged)
    (folder / "queries" / "test-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(EvaluationError) as caught:
        build("vidore", folder)
    message = str(caught.value)
    assert "corpus/test-00000.parquet, record 2 lacks image" in message
    assert "qrels names 77, which the corpus does not have" in message
    assert "queries/test-00001.parquet cannot be read" in message


# --- files ---


@pytest.mark.parametrize("text", ["", "[1, 2]", '"text"', "{", '{"images": 3}', '{"licenses": []}'])
def test_a_file_without_records_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset_coco.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"dataset_coco\.json cannot be read"):
        build("coco", tmp_path)


def test_many_problems_are_counted(tmp_path: Path) -> None:
    folder = PublicFolder(tmp_path)
    for i in range(23):
        folder.image(f"{i}.jpg")
    with pytest.raises(EvaluationError, match=r"no picture 19\.jpg; and 3 more"):
        folder.check()


def test_checksums_are_of_the_files_of_records(tmp_path: Path) -> None:
    write_karpathy(tmp_path, "dataset_coco.json", None)
    folder = PublicFolder(tmp_path)
    public_tasks("coco", folder, None)
    assert list(folder.checksums()) == ["dataset_coco.json"]


def test_another_schema_inside_a_field_is_no_crash(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset_coco.json", [{"filename": "a.jpg", "split": "test", "sentences": [{"text": "a"}]}])
    with pytest.raises(EvaluationError, match="is not in the schema of coco: KeyError\\('raw'\\)"):
        build("coco", tmp_path)


def test_a_set_that_asks_nothing_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset_coco.json", [{"filename": "a.jpg", "split": "train", "sentences": []}])
    with pytest.raises(EvaluationError, match="has no queries for coco-t2i, coco-i2t"):
        build("coco", tmp_path)


def test_a_suite_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"the suite must be one of mmeb, mmeb-v2, .* but is 'mteb'"):
        build("mteb", tmp_path)
