"""A run directory explains itself: what the run started with, how it goes, and one page that needs nothing else."""

import hashlib
import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from tensorboardX.proto.event_pb2 import Event

from mllm_embed.model_dir import file_sha256
from mllm_embed_training.build import build_stage
from mllm_embed_training.config import TrainConfig, load_config
from mllm_embed_training.progress import note, peak_memory
from mllm_embed_training.run_files import read_lines, write_file, write_lines, written_whole
from mllm_embed_training.run_record import package_checksums
from mllm_embed_training.run_report import report_page
from mllm_embed_training.trainer import train

COLOURS = ("red", "green", "blue", "black", "white", "yellow")


def recipe(model: Path, folder: Path, *, steps: int) -> TrainConfig:
    rows = [{"query": f"<b>{name}</b>", "positive": {"image": f"{name}.png"}} for name in COLOURS]
    for name in COLOURS[:-1]:  # the last row is corrupt
        PIL.Image.new("RGB", (400, 200), name).save(folder / f"{name}.png")
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    raw = {
        "stage": "contrastive",
        "run_dir": str(folder / "a run"),
        "model": {"path": str(model)},
        "lora": {"r": 2, "alpha": 4, "dropout": 0},
        "data": {
            "tasks": {"own": 1},
            "files": {"own": {"path": str(folder / "rows.jsonl"), "task": "text-to-image"}},
            "batch_size": 3,
            "group_size": 3,
        },
        "optim": {"steps": steps, "lr": 0.001},
        "bf16": False,
        "checkpoint_every": 2,
    }
    return TrainConfig.model_validate(raw)


def run(config: TrainConfig) -> Path:
    run_dir = Path(config.run_dir)
    stage, _ = build_stage(config, run_dir)
    assert train(config, stage, run_dir, start="tiny")
    return run_dir


@pytest.fixture(scope="module")
def run_dir(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that was interrupted after two."""
    folder = tmp_path_factory.mktemp("own")
    run(recipe(tiny_path, folder, steps=2))
    return run(recipe(tiny_path, folder, steps=4))


class Page(HTMLParser):
    """The texts of a page, and everything that it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()] if data.strip() else []

    def handle_starttag(self, _tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [str(value) for name, value in attributes if name in ("src", "href")]


def events(run_dir: Path) -> list[Event]:
    """What TensorBoard would read: records of a length, its checksum, an event, and its checksum."""
    found = []
    for file in sorted((run_dir / "tensorboard").iterdir(), key=lambda file: int(file.name.rpartition(".")[2])):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (size,) = struct.unpack_from("<Q", data, place)
            found.append(Event.FromString(data[place + 12 : place + 12 + size]))
            place += size + 16
    return found


def test_the_record_names_versions_machine_and_the_checksums_of_the_data(run_dir: Path) -> None:
    record = json.loads((run_dir / "run.json").read_text())
    import torch

    assert record["versions"]["torch"] == torch.__version__
    assert record["rows"] == {"own": 6}
    rows = run_dir.parent / "rows.jsonl"
    assert record["identity"]["data.files.own"]["sha256"] == {str(rows): file_sha256(rows)}
    assert record["identity"]["model"] == "tiny"
    assert "git" not in json.dumps(record)


@pytest.mark.fast
def test_the_files_of_the_data_package_are_hashed_where_a_task_reads_them(tmp_path: Path) -> None:
    (tmp_path / "emoji.parquet").write_bytes(b"rows")
    config = recipe(tmp_path, tmp_path, steps=1)
    assert package_checksums(config) == {}
    data = {"tasks": {"emoji-t2i": 1}, "folder": str(tmp_path), "batch_size": 2, "group_size": 2}
    package = TrainConfig.model_validate({**config.model_dump(by_alias=True), "data": data})
    assert package_checksums(package) == {"emoji.parquet": hashlib.sha256(b"rows").hexdigest()}


def test_the_recorded_recipe_is_the_recipe(run_dir: Path) -> None:
    assert load_config(run_dir / "config.json").optim.steps == 4


def test_the_page_needs_nothing_else_and_tells_the_run(run_dir: Path) -> None:
    page = Page((run_dir / "report.html").read_text())
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert len(page.sources) == 1 + 2  # the curves, and the pictures of two examples
    shown = " | ".join(page.texts)
    for said in ("a run", "4 of 4", "optim.lr", "0.001", "versions.torch", "identity.data.files.own.sha256"):
        assert said in shown
    assert "<b>red</b>" in page.texts, "a row's markup is text"
    assert re.search(r"own: row 5: its file 'yellow\.png' cannot be read", shown)


def test_the_page_shows_held_out_scores_and_a_loss_that_stands_still(run_dir: Path, tmp_path: Path) -> None:
    for file in run_dir.glob("*.js*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_lines(tmp_path / "heldout.jsonl", [{"step": 2, "mean": 0.25, "words": 0.25}, {"step": 4, "mean": 0.75}])
    step = read_lines(run_dir / "metrics.jsonl")[0]
    write_lines(tmp_path / "metrics.jsonl", [{**step, "step": number, "loss": 2.0} for number in range(100)])
    shown = " | ".join(Page(report_page(tmp_path)).texts)
    assert "0.250" in shown
    assert "0.750" in shown
    assert "the loss has stood still at 2 for 100 steps" in shown


def test_a_page_of_a_run_that_has_not_begun(tmp_path: Path) -> None:
    assert "steps done | 0" in " | ".join(Page(report_page(tmp_path)).texts)


def test_tensorboard_reads_every_step_and_forgets_what_was_repeated(run_dir: Path) -> None:
    found = events(run_dir)
    losses = [(e.step, e.summary.value[0].simple_value) for e in found if e.summary.value[:1] and "loss" in str(e)]
    metrics = read_lines(run_dir / "metrics.jsonl")
    assert losses == [(row["step"], pytest.approx(row["loss"])) for row in metrics]
    starts = [event.step for event in found if event.HasField("session_log")]
    assert starts == [0, 2]


@pytest.mark.fast
def test_the_bar_tells_loss_rates_and_memory() -> None:
    mean = {"loss": 1.5, "accuracy": 0.25, "seconds": 0.5, "tokens": 2000.0, "peak_memory_mib": 2048.0}
    assert note(mean, batch_size=32) == "loss 1.500  acc 0.250  64.0 pairs/s  4,000 tokens/s  2.0 GiB"
    assert 2**24 < peak_memory() < 2**40


@pytest.mark.fast
def test_a_line_that_was_cut_off_is_no_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n{"st')
    assert read_lines(path) == [{"step": 0}, {"step": 1}]
    assert read_lines(tmp_path / "absent") == []


@pytest.mark.fast
def test_a_file_or_directory_that_cannot_be_finished_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "page").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            write_file(tmp_path / "page", "new")

    def half_a_folder() -> None:
        with written_whole(tmp_path / "folder") as folder:
            (folder / "half").write_text("x")
            full()

    with pytest.raises(OSError, match="No space"):
        half_a_folder()
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    assert (tmp_path / "page").read_text() == "old"
