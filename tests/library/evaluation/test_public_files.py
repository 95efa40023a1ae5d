"""Where public sets come from, how their files are read, and what the command makes of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.cli import main
from mllm_embed.embedder import Embedder
from mllm_embed.evaluation.cli import evaluate
from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_hub import locate
from mllm_embed.evaluation.public_sets import SUITES
from tests.library.evaluation.conftest import picture
from tests.library.evaluation.public import draw, stored, write_json, write_lines, write_parquet

pytestmark = pytest.mark.fast

# --- the hub ---


def snapshot(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[dict[str, Any]]:
    import huggingface_hub

    calls: list[dict[str, Any]] = []

    def download(name: str, **options: Any) -> str:
        calls.append({"name": name, **options})
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def test_a_set_of_the_hub_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = snapshot(monkeypatch, tmp_path)
    assert locate("hub:vidore/tatdqa_test_beir").name == "tatdqa_test_beir"
    assert locate("hub:vidore/x@refs/pr/1").path == tmp_path
    assert calls == [
        {"name": "vidore/tatdqa_test_beir", "repo_type": "dataset", "revision": None},
        {"name": "vidore/x", "repo_type": "dataset", "revision": "refs/pr/1"},
    ]


def test_a_hub_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_args: Any, **_options: Any) -> str:
        raise OSError("no network\nand a long explanation")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        EvaluationError, match=r"the data set a/b could not be had from the hub: no network; give --data"
    ):
        locate("hub:a/b")


@pytest.mark.parametrize("name", ["hub:", "hub:a", "hub:a/b/c", "hub:a/b@", "hub:https://x/y"])
def test_what_is_no_name_of_the_hub_is_refused(name: str) -> None:
    with pytest.raises(EvaluationError, match="is hub:ORG/NAME"):
        locate(name)


def test_a_folder_is_called_by_its_last_part(tmp_path: Path) -> None:
    (tmp_path / "sts").mkdir()
    assert locate(str(tmp_path / "sts" / ".." / "sts")).name == "sts"
    with pytest.raises(EvaluationError, match="there is no data folder"):
        locate(str(tmp_path / "gone"))


# --- files ---


def test_pictures_of_parquet_files_go_to_disk_and_stay_apart(tmp_path: Path) -> None:
    folder = PublicFolder(tmp_path)
    for name, drawn in (("a", "abc"), ("b", "def")):
        write_parquet(tmp_path / name / "test.parquet", [{"id": one, "image": stored(one)} for one in drawn] * 50)
    rows = [
        row for name in "ab" for row in folder.records(f"{name}/test.parquet", ("id", "image"), pictures=("image",))
    ]
    assert len(rows) == 300
    assert all(row["image"].read_bytes() == picture(row["id"]) for row in rows)
    assert not list(tmp_path.glob("*/test image*"))  # the data folder itself is not written to


def test_pictures_as_bare_bytes_are_read_too(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", [{"image": picture("a")}])
    (row,) = PublicFolder(tmp_path).records("x.parquet", ("image",), pictures=("image",))
    assert row["image"].read_bytes() == picture("a")


def test_no_column_is_read_that_is_not_asked_for(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", [{"id": 1, "vision": stored("a"), "text": "t"}])
    (row,) = PublicFolder(tmp_path).records("x.parquet", ("id",), optional=("text", "category"))
    assert row == {"id": 1, "text": "t"}


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b")
    folder = PublicFolder(tmp_path)
    folder.records("x.csv", ("a",))
    with pytest.raises(EvaluationError, match=r"x\.csv is neither JSON nor parquet"):
        folder.check()


def test_a_list_of_something_else_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", [1, 2])
    folder = PublicFolder(tmp_path)
    folder.names("x.json")
    with pytest.raises(EvaluationError, match=r"x\.json is no list of strings"):
        folder.check()


# --- the command ---


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Embedder, "load", lambda _path, **_options: fake_embedder())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_videos(folder: Path) -> None:
    rows = [{"video_id": f"v{i}", "caption": [f"text {i}"]} for i in range(3)]
    write_lines(folder / "video-tasks/data/msvd.jsonl", rows)
    for i in range(3):
        draw(folder / f"video-tasks/frames/video_ret/MSVD/v{i}", *(f"{i}{k}.jpg" for k in range(12 if i else 4)))


def test_frames_metrics_and_what_is_absent_stand_in_the_report(tmp_path: Path) -> None:
    write_videos(tmp_path / "v2")
    out = tmp_path / "out.json"
    options = ["public", "mmeb-v2", "--data", str(tmp_path / "v2"), "--frames", "5", "--out", str(out)]
    result = CliRunner().invoke(evaluate, [*options, "--html", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["settings"]["frames"] == 5
    assert report["results"]["MSVD"]["parts"]["all"]["pictures_per_item"] == [4, 5]
    assert report["overall"]["groups"]["video"]["tasks"] == 1
    assert len(report["absent"]) == 77
    assert "| **video, 1 tasks** |" in result.output
    assert "Not in the folder, and in no mean: ImageNet-1K, " in result.output
    assert "MSVD" in (tmp_path / "page.html").read_text()


def test_pairs_of_sentences_have_a_report_and_a_page(tmp_path: Path) -> None:
    rows = [{"sentence1": f"a dog {i}", "sentence2": "a dog" + "!" * i, "score": 5 - i} for i in range(5)]
    write_lines(tmp_path / "stsb" / "test.jsonl", rows)
    out = tmp_path / "out.json"
    options = ["public", "sts", "--data", str(tmp_path / "stsb"), "--out", str(out), "--html", str(tmp_path / "p.html")]
    result = CliRunner().invoke(evaluate, options)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["overall"]["mean_over_tasks"] == report["results"]["sts-stsb"]["scores"]["spearman"]
    assert "| sts-stsb (spearman) | 1 | 5 | - |" in result.output
    rank = report["results"]["sts-stsb"]["parts"]["all"]["slices"]["test"]["spearman"]
    (line,) = (line for line in result.output.splitlines() if line.startswith("| sts-stsb | all | test |"))
    assert line.endswith(f"| {rank:.3f} |")
    error = CliRunner().invoke(evaluate, ["compare", str(out), str(out)]).exception
    assert "have no task in common that ranks candidates" in str(error)


def test_other_data_of_a_public_set_are_not_compared(tmp_path: Path) -> None:
    for name, text in (("one", "text"), ("other", "texts")):
        write_videos(tmp_path / name)
        rows = [{"video_id": f"v{i}", "caption": [f"{text} {i}"]} for i in range(3)]
        write_lines(tmp_path / name / "video-tasks/data/msvd.jsonl", rows)
        out = str(tmp_path / f"{name}.json")
        CliRunner().invoke(evaluate, ["public", "mmeb-v2", "--data", str(tmp_path / name), "--out", out])
    error = CliRunner().invoke(evaluate, ["report", str(tmp_path / "one.json"), str(tmp_path / "other.json")]).exception
    assert "different versions of video-tasks/data/msvd.jsonl" in str(error)


def test_faults_of_the_data_end_with_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["eval", "public", "cirr", "--data", str(tmp_path), "--out", str(tmp_path / "out.json")])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "no file image_splits/split.rc2.val.json; no file captions/cap.rc2.val.json" in told.replace("\n", " ")


def test_the_command_names_every_suite() -> None:
    told = CliRunner().invoke(evaluate, ["public", "--help"], env={"COLUMNS": "300"}).output.replace("\n", " ")
    assert all(f"{name}" in told for name in SUITES)
