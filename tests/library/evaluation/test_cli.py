import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.embedder import Embedder
from mllm_embed.errors import InputTooLong
from mllm_embed.evaluation.cli import evaluate
from mllm_embed.evaluation.encoders import EmbedderEncoder
from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.mini_mmeb import TASK_NAMES
from mllm_embed.types import EmbedInput, Text
from tests.library.evaluation.conftest import picture, write_table


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Embedder, "load", lambda _path, **_options: fake_embedder())
    monkeypatch.delenv("MLLM_EMBED_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(evaluate, [str(argument) for argument in arguments])


def measured(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def test_a_run_writes_a_report_and_prints_its_table(data_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "fake.json"
    result = run("mini-mmeb", "--model", "any", "--data", data_path, "--out", out)
    assert result.exit_code == 0, result.output
    report = measured(out)
    assert tuple(report["results"]) == TASK_NAMES
    assert report["schema_version"] == 2
    assert set(report["data"]) == {file.name for file in data_path.glob("*.parquet")}
    assert report["overall"]["tasks"] == sum(not name.startswith("robust") for name in TASK_NAMES)
    assert report["instructions"]["question"]["query"] == "Answer the question about the picture."
    assert "| emoji-t2i | 25 |" in result.output
    assert "| modality gap |" in result.output
    assert report["settings"]["bootstrap_seed"] == 0
    assert report["settings"]["frames"] == 6
    assert "| robust-emoji-i2t | blur |" in result.output
    assert len(report["config_sha256"]) == 64


def test_two_runs_differ_in_times_only(data_path: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run("mini-mmeb", "--data", data_path, "--out", tmp_path / name, "--no-cache").exit_code == 0
    one, other = measured(tmp_path / "a"), measured(tmp_path / "b")
    assert one.pop("timing") != {}
    other.pop("timing")
    assert json.dumps(one) == json.dumps(other)
    assert (tmp_path / "a.ranks.parquet").read_bytes() == (tmp_path / "b.ranks.parquet").read_bytes()


def test_a_second_run_embeds_nothing(data_path: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run("mini-mmeb", "--data", data_path, "--out", tmp_path / name)
    assert measured(tmp_path / "a")["timing"]["embedded"] > 0
    assert measured(tmp_path / "b")["timing"]["embedded"] == 0
    assert measured(tmp_path / "a")["results"] == measured(tmp_path / "b")["results"]


def test_the_data_folder_may_come_from_the_environment(
    data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLLM_EMBED_DATA", str(data_path))
    result = run("mini-mmeb", "--out", tmp_path / "a", "--tasks", "nlvr, story-t2i", "--limit-pool", "2")
    assert result.exit_code == 0, result.output
    assert list(measured(tmp_path / "a")["results"]) == ["nlvr", "story-t2i"]


def test_without_data_one_sentence_names_the_variable(tmp_path: Path) -> None:
    error = run("mini-mmeb", "--out", tmp_path / "a").exception
    assert isinstance(error, EvaluationError)
    assert str(error).count("MLLM_EMBED_DATA") == 1
    assert "\n" not in str(error)


def test_pixels_do_what_they_can(data_path: Path, tmp_path: Path) -> None:
    result = run("mini-mmeb", "--model", "pixels", "--data", data_path, "--out", tmp_path / "p")
    assert result.exit_code == 0, result.output
    assert list(measured(tmp_path / "p")["results"]) == ["emoji-i2i", "robust-emoji-i2i"]


@pytest.mark.parametrize("options", [("--random-weights",), ("--dimensions", "8")])
def test_options_that_do_not_apply_to_pixels_are_refused(
    data_path: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    result = run("mini-mmeb", "--model", "pixels", "--data", data_path, "--out", tmp_path / "p", *options)
    assert isinstance(result.exception, EvaluationError)


def test_a_name_and_a_width_are_recorded(data_path: Path, tmp_path: Path) -> None:
    options = ("--name", "before", "--dimensions", "16", "--tasks", "nlvr")
    run("mini-mmeb", "--data", data_path, "--out", tmp_path / "a", *options)
    report = measured(tmp_path / "a")
    assert (report["model"]["name"], report["settings"]["dimensions"]) == ("before", 16)


def test_reports_side_by_side(data_path: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        run("mini-mmeb", "--data", data_path, "--out", tmp_path / name, "--tasks", "nlvr", "--name", name)
    result = run("report", tmp_path / "one", tmp_path / "other", "--no-details")
    assert "| task | pool | queries | chance | one | other |" in result.output
    run("report", tmp_path / "one", "--out", tmp_path / "scores.md")
    page = (tmp_path / "scores.md").read_text()
    assert "Written by `mllm-embed eval report one --out scores.md`" in page
    assert "By part and slice" in page


def test_the_pages_of_one_run_and_of_two(data_path: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        result = run(
            *("mini-mmeb", "--data", data_path, "--out", tmp_path / f"{name}.json", "--name", name),
            *("--html", tmp_path / "pages" / f"{name}.html"),
        )
        assert result.exit_code == 0, result.output
    page = (tmp_path / "pages" / "one.html").read_text()
    assert page.count('class="strip"') > 2 * len(TASK_NAMES)
    assert "Map of the candidates" in page
    files = (tmp_path / "one.json", tmp_path / "other.json")
    assert run("report", *files, "--html", tmp_path / "both.html").output == ""
    both = (tmp_path / "both.html").read_text()
    assert all(name in both for name in ("other", *TASK_NAMES))
    assert "Map of the candidates" not in both


def test_a_public_set_is_measured_in_its_own_schema(tmp_path: Path) -> None:
    folder = tmp_path / "flickr"
    (folder / "images").mkdir(parents=True)
    images = [{"filename": f"{i}.jpg", "split": "test", "sentences": [{"raw": f"caption {i}"}]} for i in range(12)]
    (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
    for i in range(12):
        (folder / "images" / f"{i}.jpg").write_bytes(picture(str(i)))
    result = run("public", "flickr30k", "--data", folder, "--out", tmp_path / "f.json", "--html", tmp_path / "f.html")
    assert result.exit_code == 0, result.output
    report = measured(tmp_path / "f.json")
    assert (report["suite"], list(report["results"])) == ("flickr30k", ["flickr30k-t2i", "flickr30k-i2t"])
    assert list(report["data"]) == ["dataset_flickr30k.json"]
    error = run("public", "imagenet", "--data", folder, "--out", tmp_path / "f.json").exception
    assert "the suite must be one of mmeb, mmeb-v2, flickr30k, " in str(error)


def test_a_task_that_fails_does_not_lose_the_others(
    data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strict(self: EmbedderEncoder, items: list[EmbedInput]) -> NDArray[np.float32]:
        places = [place for place, item in enumerate(items) if item.content == (Text("true"),)]
        if places:
            raise InputTooLong("true is too long", index=places[0])
        return np.ones((len(items), 4), dtype=np.float32)

    monkeypatch.setattr(EmbedderEncoder, "encode", strict)
    out = tmp_path / "a.json"
    result = run("mini-mmeb", "--data", data_path, "--out", out, "--tasks", "nlvr,figure-kind", "--no-cache")
    assert isinstance(result.exception, EvaluationError)
    assert "1 tasks could not be measured: nlvr (true is too long)" in str(result.exception)
    assert list(measured(out)["results"]) == ["figure-kind"]
    assert measured(out)["failed"] == {"nlvr": "true is too long"}
    result = run("mini-mmeb", "--data", data_path, "--out", out, "--tasks", "nlvr", "--no-cache")
    assert "no task could be measured: nlvr (true is too long)" in str(result.exception)


def test_two_widths_are_compared_query_by_query(data_path: Path, tmp_path: Path) -> None:
    run("mini-mmeb", "--data", data_path, "--out", tmp_path / "full.json", "--tasks", "nlvr,emoji-i2i")
    run(
        *("mini-mmeb", "--data", data_path, "--out", tmp_path / "cut.json", "--tasks", "nlvr,emoji-i2i"),
        *("--dimensions", "8"),
    )
    result = run("compare", tmp_path / "full.json", tmp_path / "cut.json")
    assert result.exit_code == 0, result.output
    assert "| task | queries | fake | fake @8 | difference | interval | p |" in result.output
    assert "| mean over meta-tasks |" in result.output
    run("compare", tmp_path / "full.json", tmp_path / "cut.json", "--metric", "mrr", "--out", tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text().startswith("mrr: fake @8 minus fake")


def test_one_relabelled_row_changes_the_checksum_and_compare_refuses(
    make_data: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = make_data(tmp_path / "data")
    run("mini-mmeb", "--data", folder, "--out", tmp_path / "before.json", "--tasks", "nlvr")
    rows = pq.read_table(folder / "nlvr.parquet").to_pylist()
    rows[1]["label"] = not rows[1]["label"]
    write_table(folder, "nlvr", rows)
    run("mini-mmeb", "--data", folder, "--out", tmp_path / "after.json", "--tasks", "nlvr")
    before, after = measured(tmp_path / "before.json"), measured(tmp_path / "after.json")
    assert before["data"]["nlvr.parquet"] != after["data"]["nlvr.parquet"]
    error = run("compare", tmp_path / "before.json", tmp_path / "after.json").exception
    assert isinstance(error, EvaluationError)
    assert "different versions of nlvr.parquet" in str(error)


def test_other_pools_are_refused(data_path: Path, tmp_path: Path) -> None:
    for name, queries in (("a", "3"), ("b", "2")):
        out = tmp_path / f"{name}.json"
        run("mini-mmeb", "--data", data_path, "--out", out, "--tasks", "emoji-i2i", "--train-queries", queries)
    error = run("compare", tmp_path / "a.json", tmp_path / "b.json").exception
    assert "pools or queries of emoji-i2i differ" in str(error)


def test_ranks_must_lie_beside_their_report(data_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    run("mini-mmeb", "--data", data_path, "--out", out, "--tasks", "nlvr")
    ranks = tmp_path / "a.ranks.parquet"
    ranks.write_bytes(ranks.read_bytes() + b" ")
    assert "not of the same run" in str(run("compare", out, out).exception)
    ranks.unlink()
    assert "a.ranks.parquet is missing" in str(run("compare", out, out).exception)
