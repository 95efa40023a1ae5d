"""Semantic textual similarity: sentence pairs, scored by Spearman's correlation."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mllm_embed.evaluation.eval_types import EvaluationError
from tests.library.evaluation.public import build, scored, shown, write_lines, write_parquet

pytestmark = pytest.mark.fast

ROWS: list[dict[str, Any]] = [
    {"sentence1": f"one {i}", "sentence2": f"other {i}", "score": score, "genre": "news"}
    for i, score in enumerate((5.0, 3.8, 2, 0.0, 2.0))
]


def test_pairs_are_correlated_with_what_people_say(tmp_path: Path) -> None:
    """Angles between the pairs: 0, 10, 30, 20, 40. Likeness ranks 5, 4, 2.5, 1, 2.5; cosines 5, 4, 2, 3, 1.

    Spearman by hand: deviations (2, 1, -0.5, -2, -0.5) and (2, 1, -1, 0, -2), so 6.5 / sqrt(9.5 x 10).
    """
    write_lines(tmp_path / "test.jsonl", ROWS)
    degrees = {f"one {i}": 0.0 for i in range(5)} | {f"other {i}": angle for i, angle in enumerate((0, 10, 30, 20, 40))}
    (result,) = scored(build("sts", tmp_path, name="stsbenchmark"), degrees).values()
    assert result["metric"] == "spearman"
    assert result["scores"]["spearman"] == pytest.approx(6.5 / 95**0.5, abs=1e-6)
    assert result["interval"][0] < result["scores"]["spearman"] <= result["interval"][1] <= 1
    assert result["meta_task"] == "STS"


def test_a_model_that_returns_one_vector_has_found_nothing(tmp_path: Path) -> None:
    write_lines(tmp_path / "test.jsonl", ROWS)
    degrees = {f"{side} {i}": 30.0 for i in range(5) for side in ("one", "other")}
    (result,) = scored(build("sts", tmp_path), degrees).values()
    assert result["scores"] == {"spearman": 0}


def test_both_sentences_have_the_same_instruction(tmp_path: Path) -> None:
    write_lines(tmp_path / "test.jsonl", ROWS)
    (part,) = build("sts", tmp_path)[f"sts-{tmp_path.name}"].parts
    assert {item.instruction for item in part.candidates} == {query.item.instruction for query in part.queries}
    for query in part.queries:
        (place,) = query.truths
        assert shown(part.candidates[place]) == shown(query.item).replace("one", "other")


def test_the_three_forms_in_which_sets_are_published(tmp_path: Path) -> None:
    text = "\n".join(map(json.dumps, ROWS))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "test.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    write_lines(tmp_path / "b" / "test.jsonl", ROWS)
    write_parquet(
        tmp_path / "c" / "data" / "test-00000-of-00001.parquet", [row | {"score": float(row["score"])} for row in ROWS]
    )
    parts = [build("sts", tmp_path / name, name="x")["sts-x"].parts for name in "abc"]
    assert parts[0] == parts[1] == parts[2]


@pytest.mark.parametrize("damaged", [b"no gzip", gzip.compress(b"{}" * 99)[:-9], gzip.compress(b"\xff\xfe")])
def test_a_damaged_file_is_named(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "test.jsonl.gz").write_bytes(damaged)
    with pytest.raises(EvaluationError, match=r"test\.jsonl\.gz cannot be read"):
        build("sts", tmp_path)


def test_what_is_wrong_with_pairs_is_said_at_once(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"score": "high"}, ROWS[1] | {"sentence2": " "}, {"sentence1": "a", "score": 1}]
    write_lines(tmp_path / "test.jsonl", rows)
    with pytest.raises(EvaluationError) as caught:
        build("sts", tmp_path)
    message = str(caught.value)
    assert "the score of pair 0 must be a number, but is 'high'" in message
    assert "pair 1 has an empty sentence" in message
    assert "test.jsonl, record 2 lacks sentence2" in message
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(EvaluationError, match=r"no file data/test-\*\.parquet"):
        build("sts", tmp_path)
