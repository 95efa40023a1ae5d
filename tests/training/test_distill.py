"""Stage 0: the similarities of a teacher become the student's, of texts or pictures; its vectors come from a file."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mllm_embed.modeling.loading import inner_model
from mllm_embed.types import Image, Region, Text
from mllm_embed_training import prompt_encoder
from mllm_embed_training.build import build_stage, choose_tasks
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.errors import CorruptRow, DataFileError, TrainingFailed
from mllm_embed_training.examples import Side
from mllm_embed_training.plan import Draw
from mllm_embed_training.stage import Stage
from mllm_embed_training.teacher import TeacherVectors, taught_key
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


def taught_pictures(model: Path, folder: Path, **changes: Any) -> TrainConfig:
    """A joint stage that distills pictures, one in ten of its steps, and contrasts drawn shapes."""
    data = recipe(model, folder).data.model_dump(by_alias=True) | {"tasks": {"texts": 1, "toy-t2i": 0.1}}
    teacher = {
        "vectors": str(folder / "pictures.parquet"),
        "tasks": ["texts"],
        "temperature": 0.1,
        "exclude_self": True,
    }
    optim = {"steps": 40, "lr": 1e-3, "warmup_steps": 2}
    raw = {"stage": "joint", "lora": None, "teacher": None, "picture_teacher": teacher, "data": data, "optim": optim}
    config = recipe(model, folder, **raw | changes)
    pictures = [{"query": {"image": f"{place}.png"}, "positive": text} for place, text in enumerate(TEXTS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pictures))
    return config


@pytest.fixture
def album(tiny_path: Path, tmp_path: Path) -> Path:
    """Pictures, and a teacher for whom they are alike by another thing than their colour."""
    for place, text in enumerate(TEXTS):
        colour = (200, 20 * place, 0) if "red" in text else (0, 20 * place, 200)
        PIL.Image.new("RGB", (32, 32), colour).save(tmp_path / f"{place}.png")
    _, pairs = choose_tasks(taught_pictures(tiny_path, tmp_path), tmp_path / "cache")
    task = pairs["texts"]
    keys = [task.draw(row, random.Random(0)).query.key for row in (task.rows[place] for place in range(len(TEXTS)))]
    vectors = [[1.0, 0.3 * ("cup" in text)] if "big" in text else [0.0, 1.0] for text in TEXTS]
    pq.write_table(pa.table({"picture": keys, "vector": vectors}), tmp_path / "pictures.parquet")
    return tmp_path


def all_pictures(stage: Stage) -> Any:
    return stage.collate([stage.prepare(Draw("texts", row, (0, 0, row))) for row in range(len(TEXTS))])


def test_the_student_takes_over_similarities_of_pictures_its_tower_too(tiny_path: Path, album: Path) -> None:
    config = taught_pictures(tiny_path, album)
    stage, _ = build_stage(config, album / "run")
    batch = all_pictures(stage)
    metrics = stage.backward(batch)
    assert "accuracy" not in metrics  # nothing is right or wrong among them
    first = metrics["loss"]
    moved = [name for name, p in stage.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any("visual.blocks" in name for name in moved)
    stage.model.zero_grad()
    assert train(config, stage, album / "run", start="tiny")
    assert stage.backward(batch)["loss"] < 0.5 * first


def test_a_frozen_tower_looks_at_each_taught_picture_once(
    tiny_path: Path, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight pictures in two halves of chunks of three: without a look ahead all but the last chunk are seen twice."""
    config = taught_pictures(tiny_path, album, lora={"r": 4, "alpha": 8, "dropout": 0})
    gradients, looks = [], []
    for ahead in (True, False):
        stage, start = build_stage(config, album / "run")
        if not ahead:
            monkeypatch.setattr(prompt_encoder, "can_look_ahead", lambda model, family: False)
        tower: Any = inner_model(stage.model).get_submodule(start.family.tower.removeprefix("model."))
        seen: list[int] = []
        tower.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        stage.backward(all_pictures(stage))
        gradients.append([parameter.grad for parameter in trainable(stage)])
        looks.append(len(seen))
    assert looks == [4, 7]
    for one, other in zip(*gradients, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "contrastive"}, "picture_teacher is for a joint stage, and needs tasks"),
        ({"picture_teacher": {"vectors": "x"}}, "picture_teacher is for a joint stage, and needs tasks"),
        ({"picture_teacher": {"vectors": "x", "tasks": ["absent"]}}, "picture_teacher.tasks: data.tasks has no absent"),
        ({"teacher": {"vectors": "x", "tasks": ["texts"]}}, "a task has one teacher, but .* both name texts"),
    ],
)
def test_a_teacher_of_pictures_needs_tasks_of_its_own(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        taught_pictures(tmp_path, tmp_path, **changes)


def test_a_run_goes_on_with_the_same_teacher_of_pictures_only(tiny_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "pictures.parquet"
    identities = []
    for vector in ([1.0], [2.0]):
        pq.write_table(pa.table({"picture": ["a"], "vector": [vector]}), file)
        identities.append(run_identity(taught_pictures(tiny_path, tmp_path), "tiny")["picture_teacher"])
    assert identities[0] != identities[1]


def test_a_part_of_a_picture_is_not_what_a_teacher_of_pictures_saw() -> None:
    picture = PIL.Image.new("RGB", (4, 4))
    assert taught_key(Side((Image(picture),), "key"), "picture") == "key"
    assert taught_key(Side((Image(picture, Region(box=(0, 0, 2, 2))),), "key"), "picture") is None
    assert taught_key(Side((Image(picture), Text("red")), "key"), "picture") is None
    assert taught_key(Side((Text("red"),), "key"), "picture") is None


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
        (lambda path: pq.write_table(pa.table({"picture": ["a"], "vector": [[1.0]]}), path), "lacks a column text or"),
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
