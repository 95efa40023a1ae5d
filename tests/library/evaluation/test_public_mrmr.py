"""MRMR: documents and questions of text and pictures in any order, graded, in three kinds of tasks."""

from pathlib import Path
from typing import Any

import pytest

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_sets import public_tasks
from tests.library.evaluation.public import asked, build, scored, seen, shown, stored, write_parquet

pytestmark = pytest.mark.fast

Row = dict[str, Any]
LOG3 = 1.5849625007211562


def query(name: str, text: str | None, *, image: str = "", category: str = "Biology", **pictures: str) -> Row:
    return document(name, text, image=image, **pictures) | {"category": category}


def document(name: str, text: str | None, *, image: str = "", **pictures: str) -> Row:
    numbered = {key.replace("_", " "): stored(picture) for key, picture in pictures.items()}
    kinds = (["image"] if image or numbered else []) + (["text"] if text else [])
    return {
        "id": name,
        "modality": ",".join(kinds),
        "text": text,
        "image": stored(image) if image else None,
        "image 1": None,
        "image 2": None,
        "vision": stored("h"),
        **numbered,
    }


def write_set(folder: Path, queries: list[Row], corpus: list[Row], qrels: list[Row]) -> None:
    for kind, rows in (("query", queries), ("corpus", corpus), ("qrels", qrels)):
        write_parquet(folder / kind / "test-00000-of-00001.parquet", rows)


def write_knowledge(folder: Path) -> None:
    write_set(
        folder,
        [
            query("q1", "Compare <image 1> with <image 2>.", image="e", image_1="a", image_2="b"),
            query("q2", "What is this?", image="c", category="Art"),
            query("q3", "No picture at all"),
        ],
        [
            document("d1", "A text."),
            document("d2", "See <image> there", image="d"),
            document("d3", None, image="f"),
            document("d4", "Two: <image 1> <image 2>", image_1="g", image_2="a"),
        ],
        [
            {"query_id": "q1", "corpus_id": "d2", "score": 1},
            {"query_id": "q1", "corpus_id": "d4", "score": 2},
            {"query_id": "q2", "corpus_id": "d3", "score": 1},
            {"query_id": "q3", "corpus_id": "d1", "score": 0},
        ],
    )


def write_negation(folder: Path) -> None:
    write_set(
        folder,
        [query("7", None, image="a"), query("8", None, image="b")],
        [document(f"{name}_{i}", f"claim {name} {i}") for name in "78" for i in range(1, 5)],
        [{"query-id": "7", "corpus-id": "7_2", "score": 1}, {"query-id": "8", "corpus-id": "8_4", "score": 1}],
    )


def test_pictures_stand_where_the_text_names_them(tmp_path: Path) -> None:
    write_knowledge(tmp_path / "knowledge")
    task = build("mrmr", tmp_path)["mrmr-knowledge"]
    assert asked(task) == {
        "Compare + a + with + b + .": ["See + d + there", "Two: + g + a"],
        "c + What is this?": ["f"],  # a picture that the text does not name comes first
    }
    assert shown(task.parts[0].candidates[0]) == "A text."
    assert task.parts[0].queries[0].item.instruction == "Retrieve relevant documents that help answer the question."


def test_grades_and_domains_count(tmp_path: Path) -> None:
    """For q1 the document of grade 1 is first and that of grade 2 third; q2 finds its document second."""
    write_knowledge(tmp_path / "knowledge")
    degrees = {"Compare + a + with + b + .": 0.0, "See + d + there": 1, "f": 3, "Two: + g + a": 5, "A text.": 50}
    result = scored(build("mrmr", tmp_path), degrees | {"c + What is this?": 4.5})["mrmr-knowledge"]
    first = (1 + 2 / 2) / (2 + 1 / LOG3)
    assert result["metric"] == "ndcg10"
    assert result["slices"]["Biology"]["ndcg10"] == pytest.approx(first, abs=1e-6)
    assert result["slices"]["Art"]["ndcg10"] == pytest.approx(1 / LOG3, abs=1e-6)
    assert result["scores"]["ndcg10"] == pytest.approx((first + 1 / LOG3) / 2, abs=1e-6)
    assert result["meta_task"] == "knowledge"


def test_a_contradiction_is_sought_among_four(tmp_path: Path) -> None:
    write_negation(tmp_path / "negation")
    task = build("mrmr", tmp_path)["mrmr-negation"]
    assert asked(task) == {"a": ["claim 7 2"], "b": ["claim 8 4"]}
    for one in task.parts[0].queries:
        number = asked(task)[shown(one.item)][0].split()[1]
        assert seen(task, one) == [f"claim {number} {i}" for i in range(1, 5)]
    degrees = {f"claim {name} {i}": 10.0 * i for name in "78" for i in range(1, 5)}
    assert scored({task.name: task}, degrees | {"a": 20, "b": 31})[task.name]["scores"] == {"hit1": 0.5}


def test_what_the_folder_holds_is_measured_and_the_rest_noted(tmp_path: Path) -> None:
    write_knowledge(tmp_path / "knowledge")
    write_negation(tmp_path / "negation")
    folder = PublicFolder(tmp_path)
    assert [task.name for task in public_tasks("mrmr", folder, None)] == ["mrmr-knowledge", "mrmr-negation"]
    assert folder.absent == ["theorem", "traffic", "design"]
    assert list(build("mrmr", tmp_path / "negation")) == ["mrmr-negation"]
    assert list(build("mrmr", tmp_path / "negation", name="negation", limit=1)) == ["mrmr-negation"]
    with pytest.raises(EvaluationError, match="has no set of MRMR, which are knowledge, theorem, traffic"):
        build("mrmr", tmp_path / "knowledge" / "query")


def test_what_mrmr_lacks_is_said_at_once(tmp_path: Path) -> None:
    write_set(
        tmp_path / "design",
        [query("q1", "x"), query("q1", "y")],
        [document("d1", None), document("d2", "see", image="a") | {"image": None}],
        [{"query_id": "q1", "corpus_id": "d9", "score": 1}],
    )
    with pytest.raises(EvaluationError) as caught:
        build("mrmr", tmp_path)
    message = str(caught.value)
    assert "design/query q1 occurs twice" in message
    assert "design/corpus d1 has no content" in message
    assert "design/corpus d2 has no picture, but the modality image,text" in message
    assert "design/qrels names d9, which the corpus does not have" in message
