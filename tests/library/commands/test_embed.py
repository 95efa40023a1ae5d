"""`mllm-embed embed`, from arguments to the file of vectors, on the fake backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from mllm_embed.commands import embed_run
from mllm_embed.commands.rows import Row
from mllm_embed.embedder import Embedder
from mllm_embed.types import Outputs

pytestmark = pytest.mark.fast

Command = Callable[..., int]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"text number {number}\n" for number in range(10)))
    return file


@pytest.fixture
def expected(fake_dir: Path, texts: Path) -> NDArray[np.float32]:
    """The vectors of `texts`, as the library gives them."""
    with Embedder.load(fake_dir, backend="fake") as embedder:
        return embedder.embed(texts.read_text().splitlines(), role="target")


def test_parquet_holds_rows_in_order(
    command: Command, fake_dir: Path, texts: Path, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    output = tmp_path / "v.parquet"
    assert command("embed", texts, "-o", output, "--model", fake_dir, "--backend", "fake", "--batch-size", "3") == 0
    table = pq.read_table(output)
    assert table.column_names == ["id", "text", "image", "vector"]
    assert table["text"].to_pylist() == texts.read_text().splitlines()
    np.testing.assert_allclose(np.stack(table["vector"].to_numpy()), expected, atol=1e-6)
    assert not output.with_name("v.parquet.partial").exists()


def test_npy_comes_with_the_names_of_its_rows(
    command: Command, fake_dir: Path, texts: Path, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    assert command("embed", texts, "-o", tmp_path / "v.npy", "--model", fake_dir, "--backend", "fake") == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-6)
    assert (tmp_path / "v.ids.txt").read_text().splitlines() == [f"{texts}:{number}" for number in range(1, 11)]


def test_jsonl_holds_a_record_per_row_cut_to_the_width(
    command: Command, fake_dir: Path, texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "v.jsonl"
    options = ("--model", fake_dir, "--backend", "fake", "--dimensions", "8", "--instruction", "Find it.")
    assert command("embed", texts, "-o", output, *options) == 0
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert set(records[0]) == {"id", "text", "vector"}
    with Embedder.load(fake_dir, backend="fake") as embedder:
        direct = embedder.embed(texts.read_text().splitlines(), instruction="Find it.", dimensions=8)
    np.testing.assert_allclose([record["vector"] for record in records], direct, atol=1e-6)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_words_and_multivectors_stand_beside_the_vectors(
    command: Command, fake_dir: Path, texts: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_run, "_PART_BYTES", 1)  # a part per batch
    texts.write_text(texts.read_text() + "one with more letters than the others\n")
    output = tmp_path / f"v{suffix}"
    options = ("--words", "3", "--multivector", "--dimensions", "8", "--batch-size", "4", "--role", "query")
    assert command("embed", texts, "-o", output, "--model", fake_dir, "--backend", "fake", *options) == 0
    if suffix == ".jsonl":
        records = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        records = pq.read_table(output).to_pylist(maps_as_pydicts="strict")
    with Embedder.load(fake_dir, backend="fake") as embedder:
        wanted = Outputs(multivector=True, lexical=3)
        expected = embedder.embed_outputs(texts.read_text().splitlines(), wanted, dimensions=8)
    assert len(records) == len(expected)
    for record, one in zip(records, expected, strict=True):
        np.testing.assert_allclose(record["vector"], one.vector, atol=1e-6)
        assert one.multivector is not None
        np.testing.assert_allclose(record["multivector"], one.multivector, atol=1e-6)
        assert list(record["words"]) == list(one.lexical or {})
        assert record["words"] == pytest.approx(one.lexical)


def test_words_need_a_file_that_holds_them(
    command: Command, fake_dir: Path, texts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", fake_dir, "--backend", "fake", "--words", "3")
    assert command("embed", texts, "-o", tmp_path / "v.npy", *options) == 2
    assert "v.npy holds vectors alone" in capfd.readouterr().err
    assert command("embed", texts, "-o", tmp_path / "v.parquet", *options[:-1], "1025") == 2
    assert "1024" in capfd.readouterr().err


def test_corrupt_files_are_reported_skipped_and_counted(
    command: Command,
    fake_dir: Path,
    tmp_path: Path,
    draw: Callable[..., PIL.Image.Image],
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        draw(number).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes(b"not a picture")
    (folder / "3.png").write_bytes(b"")
    options = ("embed", folder, "--model", fake_dir, "--backend", "fake")
    assert command(*options, "-o", tmp_path / "a.parquet") == 0
    report = capfd.readouterr().err
    assert f"skipped {folder / '1.png'}" in report
    assert "2 rows, 2 skipped" in report
    assert pq.read_table(tmp_path / "a.parquet")["id"].to_pylist() == [str(folder / "0.png"), str(folder / "2.png")]
    assert command(*options, "-o", tmp_path / "b.parquet", "--strict") == 1


def test_a_killed_run_goes_on_where_it_was(
    command: Command,
    fake_dir: Path,
    texts: Path,
    expected: NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "v.parquet"
    options = ("embed", texts, "-o", output, "--model", fake_dir, "--backend", "fake", "--batch-size", "2")
    computed: list[str] = []
    genuine = embed_run.good_of

    def good_of(batch: list[Row], *arguments: object) -> object:
        if len(computed) == 6:
            raise KeyboardInterrupt
        computed.extend(row.id for row in batch)
        return genuine(batch, *arguments)  # type: ignore[arg-type]  # passed through as they came

    monkeypatch.setattr(embed_run, "good_of", good_of)
    monkeypatch.setattr(embed_run, "_PART_SECONDS", 0.0)
    assert command(*options) != 0
    assert not output.exists()

    computed.append("interrupted")
    assert command(*options) == 0
    assert computed[7:] == [f"{texts}:{number}" for number in range(7, 11)]
    np.testing.assert_allclose(np.stack(pq.read_table(output)["vector"].to_numpy()), expected, atol=1e-6)


def test_unfinished_parts_of_other_settings_are_refused(
    command: Command,
    fake_dir: Path,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    options = ("embed", texts, "-o", tmp_path / "v.npy", "--model", fake_dir, "--backend", "fake")
    with monkeypatch.context() as patch:
        patch.setattr("mllm_embed.commands.vector_file.PartStore.finish", _interrupted)
        assert command(*options) != 0
    assert command(*options, "--dimensions", "8") == 2
    assert "dimensions None, but now it is 8" in capfd.readouterr().err


def _interrupted(*_: object) -> int:
    raise KeyboardInterrupt


def test_an_existing_output_is_not_replaced_unasked(
    command: Command, fake_dir: Path, texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "v.npy"
    output.write_bytes(b"precious")
    options = ("embed", texts, "-o", output, "--model", fake_dir, "--backend", "fake")
    assert command(*options) == 2
    assert output.read_bytes() == b"precious"
    assert command(*options, "--overwrite") == 0
    assert np.load(output).shape == (10, 64)


def test_an_unknown_format_is_refused(command: Command, fake_dir: Path, texts: Path, tmp_path: Path) -> None:
    assert command("embed", texts, "-o", tmp_path / "v.csv", "--model", fake_dir, "--backend", "fake") == 2
