"""`mllm-embed mine` from files to the output folder, with hand-made vectors and with the fake model."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from math import cos, radians, sin
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_embed.cli import main
from mllm_embed.embedder import Embedder
from mllm_embed.toy_shapes import scenes
from mllm_embed.types import EmbedInput, Image, Text
from mllm_embed_training.data_files.schemas import SCHEMAS, read_picture

Record = dict[str, Any]
PAGE = Path(__file__).parent.parent.parent / "docs" / "mining.md"


def write(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def command(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def read(output: Path) -> list[Record]:
    return [json.loads(line) for line in (output / "mined.jsonl").read_text().splitlines()]


def report(output: Path) -> Record:
    found: Record = json.loads((output / "report.json").read_text())
    return found


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def by_angle(tmp_path: Path) -> Callable[..., Path]:
    """Mine texts whose vectors lie in a plane: `targets` gives each one's angle in degrees, all queries lie at 0."""

    def mine(rows: Sequence[Record], targets: dict[str, float], *options: object) -> Path:
        queries = dict.fromkeys([row["query"] for row in rows], 0.0)
        for name, angles in (("queries", queries), ("targets", targets)):
            vectors = [{"text": text, "vector": [cos(radians(a)), sin(radians(a))]} for text, a in angles.items()]
            write(tmp_path / f"{name}.jsonl", vectors)
        dataset, output = write(tmp_path / "pairs.jsonl", rows), tmp_path / "mined"
        vectors_of = ("--query-vectors", tmp_path / "queries.jsonl", "--target-vectors", tmp_path / "targets.jsonl")
        assert command("mine", dataset, *vectors_of, "--output", output, *options) == 0
        return output

    return mine


ANIMALS = [
    {"query": "what barks", "positive": "dog"},
    {"query": "what meows", "positive": "cat"},
    {"query": "what moos", "positive": "cow"},
    {"query": "what bleats", "positive": "sheep"},
]
ANGLES = {"dog": 40.0, "cat": 42.0, "cow": 60.0, "sheep": 75.0}
"""Cosines with every query: 0.766, 0.743, 0.5, 0.259."""


@pytest.mark.fast
def test_a_row_gets_its_negatives_with_their_scores(by_angle: Callable[..., Path]) -> None:
    first, _, third, _ = read(by_angle(ANIMALS, ANGLES, "-n", "2"))
    assert first == {
        "query": "what barks",
        "positive": "dog",
        "negatives": ["cow", "sheep"],  # cat is above 0.95 * 0.766 = 0.728
        "positive_score": 0.766044,
        "negative_scores": [0.5, 0.258819],
    }
    assert third["negatives"] == ["sheep"], "dog and cat score above 0.95 * 0.5"


@pytest.mark.fast
def test_the_report_counts_what_happened(by_angle: Callable[..., Path]) -> None:
    output = by_angle(ANIMALS, ANGLES, "-n", "2")
    found = report(output)
    assert found["negatives"] == {
        "mined": 5,
        "brought_along": 0,
        "rows_with_enough": 2,
        "rows_with_fewer": 1,
        "rows_with_none": 1,
    }
    assert found["dropped_as_false_negatives"] == {"max_relative": 1 + 1 + 2 + 3}
    assert found["excluded_as_equal_to"] == {"positive": 3}, "that of the last row lies behind all candidates"
    assert found["positive_before_all_candidates"] == 0.25
    assert found["scores"]["positive"]["mean"] == pytest.approx((0.766 + 0.7431 + 0.5 + 0.2588) / 4, abs=1e-3)
    closest, *_ = found["closest_negatives"]
    assert (closest["query"], closest["other"]) == ("what moos", "sheep")
    weakest, *_ = found["weakest_positives"]
    assert (weakest["query"], weakest["positive"], weakest["other"]) == ("what bleats", "sheep", "dog")
    page = (output / "report.md").read_text()
    assert "| rows with fewer than 2 | 1 |" in page
    assert (output / "scores.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.fast
def test_window_margin_and_absolute_limit_reach_the_rules(by_angle: Callable[..., Path]) -> None:
    options = ("-n", "1", "--max-relative", "100", "--overwrite")
    assert read(by_angle(ANIMALS, ANGLES, *options))[0]["negatives"] == ["cat"]
    assert read(by_angle(ANIMALS, ANGLES, *options, "--skip", "1"))[0]["negatives"] == ["cow"]
    assert read(by_angle(ANIMALS, ANGLES, *options, "--margin", "0.3"))[0]["negatives"] == ["sheep"]
    assert read(by_angle(ANIMALS, ANGLES, *options, "--max-score", "0.6"))[0]["negatives"] == ["cow"]
    assert read(by_angle(ANIMALS, ANGLES, *options, "--window", "1", "--margin", "0.1"))[0]["negatives"] == []


@pytest.mark.fast
def test_no_positive_of_an_equal_query_is_a_negative_and_the_lowest_limits(
    by_angle: Callable[..., Path],
) -> None:
    rows = [
        {"query": "animals", "positives": ["dog", "cow"], "grades": [2, 1]},
        {"query": "Animals ", "positive": "cat"},
        {"query": "what bleats", "positive": "sheep"},
    ]
    both, one, other = read(by_angle(rows, ANGLES))
    assert both["negatives"] == ["sheep"]
    assert both["positive_score"] == 0.5
    assert (both["positives"], both["grades"]) == (["dog", "cow"], [2.0, 1.0])
    assert one["negatives"] == ["sheep"]
    assert other["negatives"] == []


@pytest.mark.fast
def test_what_equals_a_positive_or_the_query_is_no_negative(by_angle: Callable[..., Path], tmp_path: Path) -> None:
    corpus = write(
        tmp_path / "corpus.jsonl", [{"text": text} for text in ("cow", "DOG", "what  barks", "cow ", "sheep")]
    )
    angles = {**ANGLES, "DOG": 70.0, "what  barks": 71.0, "cow ": 60.0}
    output = by_angle(ANIMALS[:1], angles, "--corpus", corpus, "--add-positives")
    assert read(output)[0]["negatives"] == ["cow", "sheep"]
    assert report(output)["corpus"] == {"entries": 6, "duplicates": 2}
    assert report(output)["excluded_as_equal_to"] == {"positive": 1, "query": 1}


@pytest.mark.fast
def test_own_negatives_stand_first_or_are_forgotten(by_angle: Callable[..., Path]) -> None:
    rows: list[Record] = [{**ANIMALS[0], "negatives": ["sheep"], "id": "a", "task": "text-to-text"}, *ANIMALS[1:]]
    kept = read(by_angle(rows, ANGLES))[0]
    assert (kept["negatives"], kept["negative_scores"]) == (["sheep", "cow"], [0.258819, 0.5])
    assert (kept["id"], kept["task"]) == ("a", "text-to-text")
    assert read(by_angle(rows, ANGLES, "--own-negatives", "drop", "--overwrite"))[0]["negatives"] == ["cow", "sheep"]


@pytest.mark.fast
def test_the_output_can_be_mined_again(by_angle: Callable[..., Path], tmp_path: Path) -> None:
    before = read(by_angle(ANIMALS, ANGLES))
    assert read(by_angle(before, ANGLES, "--own-negatives", "drop", "--overwrite")) == before


def mixed(folder: Path, count: int = 12) -> tuple[Path, list[Record]]:
    """Rows with pictures, texts and both on either side, their pictures in a folder beside the file."""
    (folder / "pictures").mkdir(parents=True)
    rows: list[Record] = []
    for number, scene in enumerate(scenes(count, seed=0, side=64)):
        picture = f"pictures/{number}.png"
        scene.image.save(folder / picture)
        positive = [{"image": picture}, {"image": picture, "text": "a picture"}, scene.edit.caption][number % 3]
        rows.append({"query": scene.caption, "positive": positive, "task": "text-to-image"})
    return write(folder / "pairs.jsonl", rows), rows


def content(side: Any, folder: Path) -> EmbedInput:
    if isinstance(side, str):
        return EmbedInput((Text(side),))
    return EmbedInput((Image(folder / side["image"]), *([Text(side["text"])] if "text" in side else [])))


def resolved(item: EmbedInput) -> list[str]:
    return [part.text if isinstance(part, Text) else str(Path(str(part.source)).resolve()) for part in item.content]


@pytest.mark.fast
def test_a_mixed_corpus_is_ranked_as_brute_force_ranks_it(fake_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    dataset, rows = mixed(folder)
    output = tmp_path / "elsewhere" / "mined"
    model = ("--model", fake_dir, "--backend", "fake", "--batch-size", "5")
    assert command("mine", dataset, *model, "--output", output, "--max-relative", "100", "-n", "3") == 0
    with Embedder.load(fake_dir, backend="fake") as embedder:
        queries = embedder.embed([row["query"] for row in rows], task="text-to-image", role="query")
        positives = [content(row["positive"], folder) for row in rows]
        targets = embedder.embed(positives, task="text-to-image", role="target")
    scores = queries @ targets.T
    for number, found in enumerate(read(output)):
        order = [row for row in np.argsort(-scores[number]) if row != number][:3]
        names = [resolved(content(side, output)) for side in found["negatives"]]
        assert names == [resolved(positives[row]) for row in order]
        np.testing.assert_allclose(found["negative_scores"], scores[number][order], atol=2e-6)
        assert found["positive_score"] == pytest.approx(scores[number][number], abs=2e-6)


@pytest.mark.fast
def test_training_reads_what_mining_wrote(fake_dir: Path, tmp_path: Path) -> None:
    dataset, rows = mixed(tmp_path / "data")
    output = tmp_path / "mined"
    assert command("mine", dataset, "--model", fake_dir, "--backend", "fake", "--output", output) == 0
    before = [SCHEMAS["pairs"](row, read_picture(tmp_path / "data"), Random(0)) for row in rows]
    after = [SCHEMAS["pairs"](row, read_picture(output), Random(0)) for row in read(output)]
    assert [(one.query, one.positives, one.task) for one in after] == [
        (one.query, one.positives, one.task) for one in before
    ]
    right = {one.positives[0].key for one in before}
    assert all({side.key for side in one.negatives} <= right - {one.positives[0].key} for one in after)
    assert sum(len(one.negatives) for one in after) > len(rows)


@pytest.mark.fast
def test_vectors_of_the_embed_command_give_what_the_model_gives(
    fake_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset, rows = mixed(tmp_path / "data")
    model = ("--model", fake_dir, "--backend", "fake")
    write(tmp_path / "data" / "queries.jsonl", [{"text": row["query"]} for row in rows])
    sides = [row["positive"] if isinstance(row["positive"], dict) else {"text": row["positive"]} for row in rows]
    write(tmp_path / "data" / "targets.jsonl", sides)
    for name, role in (("queries", "query"), ("targets", "target")):
        task = ("--task", "text-to-image", "--role", role)
        assert command("embed", f"data/{name}.jsonl", "-o", f"{name}.parquet", *model, *task) == 0
    given = ("--query-vectors", "queries.parquet", "--target-vectors", "targets.parquet")
    assert command("mine", dataset, *given, "--output", "given") == 0
    assert command("mine", dataset, *model, "--output", "made") == 0
    for one, other in zip(read(tmp_path / "given"), read(tmp_path / "made"), strict=True):
        assert one["negatives"] == other["negatives"]
        np.testing.assert_allclose(one["negative_scores"], other["negative_scores"], atol=2e-6)
        assert one["positive_score"] == pytest.approx(other["positive_score"], abs=2e-6)


@pytest.mark.fast
def test_a_rows_own_instructions_are_used_on_both_sides(fake_dir: Path, tmp_path: Path) -> None:
    task = {"query": "Find the opposite.", "target": "A word:"}
    rows: list[Record] = [{"query": "day", "positive": "night", "task": task}, {"query": "hot", "positive": "cold"}]
    dataset, output = write(tmp_path / "pairs.jsonl", rows), tmp_path / "mined"
    options = ("--max-relative", "100", "--query-instruction", "Q", "--target-instruction", "T")
    assert command("mine", dataset, "--model", fake_dir, "--backend", "fake", "--output", output, *options) == 0
    with Embedder.load(fake_dir, backend="fake") as embedder:
        for found, (asked, told) in zip(read(output), [tuple(task.values()), ("Q", "T")], strict=True):
            query = embedder.embed([found["query"]], instruction=asked)
            targets = embedder.embed([found["positive"], *found["negatives"]], instruction=told)
            scores = [found["positive_score"], *found["negative_scores"]]
            np.testing.assert_allclose(scores, (query @ targets.T)[0], atol=2e-6)


@pytest.mark.fast
def test_equal_seeds_give_equal_files_and_others_other_ones(fake_dir: Path, tmp_path: Path) -> None:
    dataset, _ = mixed(tmp_path / "data", 30)

    def files(seed: int) -> dict[str, bytes]:
        options = ("--pick", "random", "--seed", seed, "-n", "4", "--max-relative", "100", "--overwrite")
        model = ("--model", fake_dir, "--backend", "fake")
        assert command("mine", dataset, *model, "--output", tmp_path / "mined", *options) == 0
        return {path.name: path.read_bytes() for path in (tmp_path / "mined").iterdir()}

    assert files(1) == files(1)
    assert files(1)["mined.jsonl"] != files(2)["mined.jsonl"]


@pytest.mark.fast
def test_pictures_inside_a_parquet_file_become_files_once_each(fake_dir: Path, tmp_path: Path) -> None:
    _, rows = mixed(tmp_path / "data", 9)
    pictures = [(tmp_path / "data" / f"pictures/{number // 2}.png").read_bytes() for number in range(9)]
    columns = {
        "query": [row["query"] for row in rows],
        "positive": [{"text": None, "image": {"bytes": data, "path": None}} for data in pictures],
    }
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    output = tmp_path / "mined"
    model = ("--model", fake_dir, "--backend", "fake", "--max-relative", "100")
    assert command("mine", tmp_path / "pairs.parquet", *model, "--output", output) == 0
    assert report(output)["corpus"] == {"entries": 9, "duplicates": 4}
    found = read(output)
    assert [(output / row["positive"]["image"]).read_bytes() for row in found] == pictures
    assert len(list((output / "pictures").iterdir())) == 5
    assert {len(row["negatives"]) for row in found} == {4}


class Counting:
    """Stands in for `Embedder.embed`: counts items, and dies when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.items, self.dies_after = 0, 10**9
        real = Embedder.embed

        def embed(embedder: Embedder, items: Sequence[Any], **options: Any) -> Any:
            if self.items >= self.dies_after:
                raise KeyboardInterrupt
            self.items += len(items)
            return real(embedder, items, **options)

        monkeypatch.setattr(Embedder, "embed", embed)


@pytest.mark.fast
def test_a_killed_run_goes_on_where_it_was(
    fake_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset, _ = mixed(tmp_path / "data")  # 12 queries and 12 positives
    model = ("--model", fake_dir, "--backend", "fake", "--batch-size", "5", "--output", tmp_path / "mined")
    counting = Counting(monkeypatch)
    counting.dies_after = 15
    assert command("mine", dataset, *model) != 0
    assert not (tmp_path / "mined").exists()
    assert counting.items == 15
    counting.dies_after = 10**9
    assert command("mine", dataset, *model) == 0
    assert counting.items == 24, "what was embedded before the kill is not embedded again"
    assert "15 of 24 vectors are there already" in capfd.readouterr().err
    assert command("mine", dataset, *model, "--overwrite", "--max-relative", "0.8") == 0
    assert counting.items == 24, "other limits cost no new embedding"
    resumed = read(tmp_path / "mined")
    other_cache = ("--cache", tmp_path / "other", "--overwrite", "--max-relative", "0.8")
    assert command("mine", dataset, *model, *other_cache) == 0
    assert counting.items == 48
    assert read(tmp_path / "mined") == resumed


@pytest.mark.fast
def test_a_changed_picture_is_embedded_again(fake_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, _ = mixed(tmp_path / "data")
    model = ("--model", fake_dir, "--backend", "fake", "--overwrite", "--output", tmp_path / "mined")
    counting = Counting(monkeypatch)
    assert command("mine", dataset, *model) == 0
    shutil.copy(tmp_path / "data/pictures/11.png", tmp_path / "data/pictures/0.png")
    assert command("mine", dataset, *model) == 0
    assert counting.items == 25


def test_the_documented_example_runs_on_the_built_in_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(?:python)?\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    script, line = blocks[0], blocks[1]
    exec(compile(script, PAGE.name, "exec"), {})  # noqa: S102  # our own page
    assert command(*shlex.split(line)[1:]) == 0
    rows = read(tmp_path / "mined")
    assert len(rows) == 40
    assert rows[0]["positive"] == {"image": "../shapes/0.png"}
    assert all(f'"{key}":' in blocks[2] for key in rows[0])
    for row in rows:
        assert row["positive"] not in row["negatives"]
        assert all((tmp_path / "mined" / side["image"]).is_file() for side in row["negatives"])
        assert row["negative_scores"] == sorted(row["negative_scores"], reverse=True)
        assert all(score <= 0.95 * row["positive_score"] + 2e-6 for score in row["negative_scores"])
    assert any(row["negatives"] for row in rows)
