"""What `mllm-embed mine` refuses: one sentence that says what is wrong, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mllm_embed.backends.fake import FAKE_MODEL, fake_embedder
from mllm_embed.cli import main
from mllm_embed.embedder import Embedder
from mllm_embed.toy_shapes import scenes
from mllm_embed_training.mining.outputs import seen_from
from mllm_embed_training.mining.vectors import Encoding

pytestmark = pytest.mark.fast

Refused = Callable[..., str]
GOOD = [{"query": "one", "positive": "1"}, {"query": "two", "positive": "2"}, {"query": "three", "positive": "3"}]


def write(path: Path, records: Sequence[Any]) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake model behind every name, and relative paths under `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Embedder, "load", lambda *_, **__: fake_embedder())
    monkeypatch.setattr(Encoding, "describe", lambda _: {"model": str(FAKE_MODEL)})


def mine(*arguments: object) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["mine", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run `mine`, expect exit code 2 and no output, and return the sentence."""

    def run(*arguments: object) -> str:
        capfd.readouterr()
        assert mine(*arguments, "--output", "mined") == 2
        assert [path.name for path in tmp_path.iterdir() if "mined" in path.name] == []
        last = capfd.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("mllm-embed: ")
        return last.removeprefix("mllm-embed: ")

    return run


def test_a_missing_file_is_named(refused: Refused) -> None:
    assert refused("nowhere.jsonl") == "there is no file nowhere.jsonl"
    assert refused(write(Path("pairs.jsonl"), GOOD), "--corpus", "nowhere.jsonl") == "there is no file nowhere.jsonl"


def test_corrupt_rows_are_counted_and_listed_at_once(refused: Refused) -> None:
    rows = [
        GOOD[0],
        "{not JSON",
        {"query": "two"},
        {"qury": "three", "positive": "3"},
        {"qury": "four", "positive": "4"},
        {"query": "five", "positive": {"image": "missing.png"}},
        {"query": "six", "positive": "6", "task": "no such task"},
        {"query": "", "positive": "7"},
    ]
    said = refused(write(Path("pairs.jsonl"), rows))
    assert said.startswith("7 rows cannot be used: row 2 of pairs.jsonl: it is not JSON")
    assert "row 3 of pairs.jsonl: it has no positive" in said
    assert "rows 4, 5 of pairs.jsonl: it has the unknown field 'qury'" in said
    assert "row 6 of pairs.jsonl: its file 'missing.png' cannot be read (No such file or directory)" in said
    assert "row 7 of pairs.jsonl: its task must be a built-in one" in said
    assert "row 8 of pairs.jsonl: a side has neither text nor image" in said
    assert said.endswith("Repair them, or add --skip-corrupt to go on without them")


def test_a_long_list_is_cut(refused: Refused) -> None:
    rows = [*GOOD, *({"query": f"q{number}", "positive": "p", f"extra{number}": 1} for number in range(40))]
    said = refused(write(Path("pairs.jsonl"), rows))
    assert said.startswith("40 rows cannot be used: ")
    assert "; and 30 more reasons. " in said


def test_pictures_that_cannot_be_decoded_are_listed_after_all_were_tried(refused: Refused) -> None:
    for number, scene in enumerate(scenes(3, seed=0, side=64)):
        scene.image.save(f"{number}.png")
    Path("bad.png").write_bytes(b"no picture")
    names = ("0.png", "bad.png", "1.png", "2.png")
    rows = [{"query": name, "positive": {"image": name}} for name in names]
    said = refused(write(Path("pairs.jsonl"), rows))
    assert said.startswith("1 row cannot be used: row 2 of pairs.jsonl: the image's format must be one of")


def test_rows_that_cannot_be_used_are_left_out_and_reported_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    Path("bad.png").write_bytes(b"no picture")
    rows = [*GOOD, "{not JSON", {"query": "four", "positive": {"image": "bad.png"}}]
    pairs = write(Path("pairs.jsonl"), rows)
    assert mine(pairs, "--skip-corrupt", "--max-relative", "100", "-o", "mined") == 0
    assert "3 rows, 6 negatives mined; 3 rows have fewer than 8; 2 rows could not be used" in capfd.readouterr().out
    report = json.loads(Path("mined/report.json").read_text())
    assert [fault["row"] for fault in report["skipped"]] == [4, 5]
    assert "| pairs.jsonl | 4 | it is not JSON" in Path("mined/report.md").read_text()
    mined = [json.loads(line) for line in Path("mined/mined.jsonl").read_text().splitlines()]
    assert [row["query"] for row in mined] == ["one", "two", "three"]
    assert all(isinstance(side, str) for row in mined for side in row["negatives"]), "the bad picture is no candidate"


def test_nothing_to_mine_from_is_said(refused: Refused) -> None:
    assert refused(write(Path("pairs.jsonl"), [])) == "pairs.jsonl has no rows"
    pairs = write(Path("pairs.jsonl"), GOOD)
    assert refused(pairs, "--corpus", write(Path("corpus.jsonl"), [])) == "corpus.jsonl has no rows"
    equal = write(Path("equal.jsonl"), [{**row, "positive": "The same"} for row in GOOD])
    said = "the corpus, which is the positives of equal.jsonl, must have at least 2 different entries, but has 1"
    assert refused(equal) == said
    bad = write(Path("bad.jsonl"), [{"query": "one"}])
    assert refused(bad, "--skip-corrupt") == "bad.jsonl has no row that can be used"


def test_positives_must_be_in_the_corpus(refused: Refused) -> None:
    corpus = write(Path("corpus.jsonl"), [{"text": "2"}, {"text": "5"}])
    assert refused(write(Path("pairs.jsonl"), GOOD), "--corpus", corpus) == (
        "2 rows cannot be used: rows 1, 3 of pairs.jsonl: a positive is not in corpus.jsonl. "
        "Add them to the corpus, or pass --add-positives"
    )


def test_a_corpus_has_known_fields(refused: Refused) -> None:
    corpus = write(Path("corpus.jsonl"), [{"text": "1"}, {"txt": "2"}])
    said = refused(write(Path("pairs.jsonl"), GOOD), "--corpus", corpus)
    assert said.startswith("1 row cannot be used: row 2 of corpus.jsonl: it has the unknown field 'txt'; known are")


def test_an_existing_output_is_not_touched_unless_it_is_ours(tmp_path: Path) -> None:
    pairs = write(Path("pairs.jsonl"), GOOD)
    assert mine(pairs, "-o", "mined") == 0
    assert mine(pairs, "-o", "mined") == 2
    assert mine(pairs, "-o", "pairs.jsonl", "--overwrite") == 2
    Path("mined/notes.txt").write_text("not of mining")
    assert mine(pairs, "-o", "mined", "--overwrite") == 2
    assert Path("mined/notes.txt").exists()
    Path("mined/notes.txt").unlink()
    assert mine(pairs, "-o", "mined", "--overwrite", "-n", "1") == 0
    assert json.loads(Path("mined/report.json").read_text())["settings"]["per_query"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "mined", "pairs.jsonl"]


def test_a_full_disk_is_said_and_leaves_the_earlier_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pairs = write(Path("pairs.jsonl"), GOOD)
    assert mine(pairs, "-o", "mined") == 0
    before = Path("mined/mined.jsonl").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mllm_embed_training.mining.run.write_report", full)
    assert mine(pairs, "-o", "mined", "--overwrite", "-n", "1") == 2
    assert "mined cannot be written: No space left on device" in capfd.readouterr().err
    assert Path("mined/mined.jsonl").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "mined", "pairs.jsonl"]


def vectors(name: str, texts: Sequence[str], width: int = 2) -> Path:
    rows = [{"text": text, "vector": [1.0, *[0.5] * (width - 1)]} for text in texts]
    return write(Path(f"{name}.jsonl"), rows)


def test_given_vectors_must_be_complete_and_fit(refused: Refused) -> None:
    pairs = write(Path("pairs.jsonl"), GOOD)
    queries, targets = vectors("queries", ["one", "two", "three"]), vectors("targets", ["1", "2"])
    given = ("--query-vectors", queries, "--target-vectors")
    assert refused(pairs, *given, targets) == (
        "targets.jsonl must hold vectors of 3 different things, but lacks 1 of them, the first in row 3 of pairs.jsonl"
    )
    wide = vectors("wide", ["1", "2", "3"], width=3)
    assert refused(pairs, *given, wide) == "queries.jsonl has vectors of 2 numbers, but wide.jsonl of 3"
    zero = write(Path("zero.jsonl"), [{"text": "1", "vector": [0.0, 0.0]}])
    assert refused(pairs, *given, zero) == "row 1 of zero.jsonl must have a vector of 2 finite numbers, not all 0"
    assert refused(pairs, *given, "targets.npy").startswith("vectors must be in a .parquet or .jsonl file")
    assert refused(pairs, "--query-vectors", queries) == "--query-vectors and --target-vectors must be given together"
    assert refused(pairs, *given, targets, "--model", "some").startswith("vectors come from --model or from")


def test_impossible_options_are_refused_before_anything_is_read(refused: Refused) -> None:
    assert refused("nowhere.jsonl", "--max-relative", "0") == "max-relative must be a number above 0, but is 0.0"
    assert refused("nowhere.jsonl", "-n", "0") == "per-query must be between 1 and the window of 100, but is 0"
    assert refused("nowhere.jsonl", "--task", "none").startswith("task must be one of")


def test_paths_lead_from_a_linked_folder_to_the_pictures(tmp_path: Path) -> None:
    for folder in ("other/disk", "pictures"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pictures" / "one.png").touch()
    (tmp_path / "mined").symlink_to(tmp_path / "other" / "disk")
    written = seen_from(tmp_path / "mined", tmp_path / "pictures")("one.png")
    assert isinstance(written, str)
    assert (tmp_path / "mined" / written).exists()
