"""Public sets in the schemas of their makers, each with a few rows that are written here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError, Query
from mllm_embed.evaluation.mmeb import META_TASKS, SLICE_IN, SLICE_OUT
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_sets import SUGARCREPE, SUITES
from mllm_embed.evaluation.runner import embed_all, overall, rank_tasks, score_tasks
from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed.types import EmbedInput, Image, Text
from tests.library.evaluation.conftest import picture

pytestmark = pytest.mark.fast


def draw(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(name))


def build(suite: str, folder: Path, limit: int | None = None) -> dict[str, EvalTask]:
    return {task.name: task for task in SUITES[suite](PublicFolder(folder), limit)}


def shown(item: EmbedInput) -> str:
    words = []
    for content in item.content:
        if isinstance(content, Text):
            words.append(content.text)
        else:
            words.append(content.source.name if isinstance(content.source, Path) else "page")
    return " + ".join(words)


def asked(task: EvalTask) -> dict[str, list[str]]:
    """Every query with its right answers."""
    (part,) = task.parts
    return {shown(query.item): [shown(part.candidates[place]) for place in query.truths] for query in part.queries}


def seen(task: EvalTask, query: Query) -> list[str]:
    return [shown(task.parts[0].candidates[place]) for place in query.extras]


# --- MMEB ---


def write_mmeb(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / name / "test-00000-of-00001.parquet")


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
    tasks = list(build("mmeb", mmeb).values())

    class Constant:
        def describe(self) -> dict[str, Any]:
            return {"name": "constant", "fingerprint": "constant"}

        def accepts(self, item: EmbedInput) -> bool:
            return True

        def encode(self, items: Sequence[EmbedInput]) -> Any:
            """Like the red one, unlike the others."""
            rows = [[1.0, 0.0] if "red" in shown(item) or "2.jpg" in shown(item) else [0.0, 1.0] for item in items]
            return np.array(rows, dtype=np.float32)

    store = VectorStore(None, {})
    embed_all(tasks, Constant(), store, lambda _done, _all: None)
    means = overall(score_tasks(tasks, rank_tasks(tasks, store)))
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
    assert "record 0 lacks tgt_img_path" in message


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
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)))
    tasks = list(build("winoground", tmp_path).values())
    # Example 0 is told apart both ways. In example 1 both pictures prefer their caption, both captions picture 1.
    angles = {"0 plant": 0, "ex_0_img_0.png": 0, "0 lamp": 90, "ex_0_img_1.png": 90}
    angles |= {"1 plant": 0, "ex_1_img_0.png": -40, "1 lamp": 50, "ex_1_img_1.png": 26}

    class Angles:
        def describe(self) -> dict[str, Any]:
            return {"name": "angles", "fingerprint": "angles"}

        def accepts(self, item: EmbedInput) -> bool:
            return True

        def encode(self, items: Sequence[EmbedInput]) -> Any:
            radians = np.radians([angles[shown(item)] for item in items])
            return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)

    store = VectorStore(None, {})
    embed_all(tasks, Angles(), store, lambda _done, _all: None)
    results = score_tasks(tasks, rank_tasks(tasks, store))
    found = {name: result["instances"]["all_hit1"] for name, result in results.items()}
    assert found == {"winoground-text": 1, "winoground-image": 0.5, "winoground-group": 0.5}


# --- documents ---


def test_vidore_pages_may_be_right_together(tmp_path: Path) -> None:
    tables: dict[str, list[dict[str, Any]]] = {
        "queries": [{"query-id": i, "query": f"question {i}"} for i in range(3)],
        "corpus": [{"corpus-id": i, "image": {"bytes": picture(f"page {i}"), "path": None}} for i in range(5)],
        "qrels": [
            {"query-id": 0, "corpus-id": 3, "score": 2},
            {"query-id": 0, "corpus-id": 4, "score": 1},
            {"query-id": 1, "corpus-id": 0, "score": 0},
            {"query-id": 2, "corpus-id": 1, "score": 1},
        ],
    }
    folder = tmp_path / "vidore_x"
    for kind, rows in tables.items():
        (folder / kind).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / kind / "test-00000.parquet")
    (task,) = build("vidore", folder).values()
    (part,) = task.parts
    assert (task.name, part.pool) == ("vidore_x", 5)
    assert {shown(query.item): query.truths for query in part.queries} == {"question 0": (3, 4), "question 2": (1,)}
    assert isinstance(part.candidates[0].content[0], Image)
    pq.write_table(pa.Table.from_pylist(tables["corpus"][:1]), folder / "corpus" / "test-00001.parquet")
    with pytest.raises(EvaluationError, match="page 0 occurs twice"):
        build("vidore", folder)


# --- files ---


@pytest.mark.parametrize("text", ["", "[1, 2]", '"text"', "{"])
def test_a_file_without_records_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset_coco.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"dataset_coco\.json cannot be read"):
        build("coco", tmp_path)


def test_many_problems_are_counted(tmp_path: Path) -> None:
    folder = PublicFolder(tmp_path)
    for i in range(8):
        folder.image(f"{i}.jpg")
    with pytest.raises(EvaluationError, match=r"no picture 4\.jpg; and 3 more"):
        folder.check()


def test_checksums_are_of_the_files_of_records(tmp_path: Path) -> None:
    write_karpathy(tmp_path, "dataset_coco.json", None)
    folder = PublicFolder(tmp_path)
    SUITES["coco"](folder, None)
    assert list(folder.checksums()) == ["dataset_coco.json"]
