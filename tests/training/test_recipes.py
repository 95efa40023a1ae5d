"""Every recipe of the repository trains a small model, and a run that was killed ends with the same bits."""

import io
import json
import os
import random
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from mllm_embed.tasks import DEFAULT, get_task
from mllm_embed_training import toy_tasks
from mllm_embed_training.build import build_stage
from mllm_embed_training.config import Kind, TrainConfig
from mllm_embed_training.data_files import file_task
from mllm_embed_training.progress import Progress
from mllm_embed_training.teach import lone_sides
from mllm_embed_training.trainer import train

CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.yaml"))
COLOURS = ("red", "green", "blue", "black", "white", "yellow", "purple", "orange", "navy", "teal", "pink", "brown")
TEACHERS: tuple[tuple[Kind, str, str], ...] = (
    ("text", "pairs.jsonl", "teacher.parquet"),
    ("picture", "captions.jsonl", "picture_teacher.parquet"),
)
STEPS = 4
KILLED_AFTER = 3


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()


def a_pair(colour: str) -> dict[str, Any]:
    return {"query": f"a {colour} thing", "positive": f"something {colour}", "negatives": [f"not {colour}"]}


def an_mmeb_row(colour: str) -> dict[str, Any]:
    return {"qry": "<|image_1|>\nWhich colour?", "qry_image_path": f"{colour}.png", "pos_text": colour}


def a_conversation(colour: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>\nWhich colour?"}, {"from": "gpt", "value": colour}]
    return {"image": f"{colour}.png", "conversations": turns}


def a_caption(colour: str) -> dict[str, Any]:
    return {"query": {"image": f"{colour}.png"}, "positive": f"a square that is all {colour}, from one side to another"}


def a_film(colour: str) -> dict[str, Any]:
    return {"query": f"{colour}, then white", "positive": {"video": f"{colour}.gif", "frames": 2}}


ROWS: dict[str, Callable[[str], dict[str, Any]]] = {
    "pairs": a_pair,
    "captions": a_caption,
    "videos": a_film,
    "mmeb": an_mmeb_row,
    "llava": a_conversation,
}


def small(recipe: Path, model: Path, folder: Path, run_dir: Path) -> TrainConfig:
    """The recipe with a tiny model, few rows of the same fields and few steps; everything else as it stands."""
    raw = yaml.safe_load(recipe.read_text())
    raw |= {"run_dir": str(run_dir), "bf16": False, "checkpoint_every": 2}
    raw["model"] = {**raw["model"], "path": str(model), "scratch": None}
    toys = {"generative": ["toy-caption"], "joint": ["toy-caption", "toy-edit"]}.get(raw["stage"], ["toy-t2i"])
    files = raw["data"].get("files", {})
    for name, file in files.items():
        schema = file.get("schema", "captions" if "images" in file else "videos" if name == "videos" else "pairs")
        files[name] = {**file, "path": str(folder / f"{schema}.jsonl"), "images": str(folder)}
    tasks = raw["data"]["tasks"] if files else dict.fromkeys(toys, 1)
    for teacher, rows in (("teacher", "pairs"), ("picture_teacher", "captions")):
        for name in raw.get(teacher, {}).get("tasks", ()):  # of the data package
            files[name], tasks[name] = {"path": str(folder / f"{rows}.jsonl"), "images": str(folder)}, 1
    sizes = {"batch_size": 4, "group_size": 2 if raw["data"]["group_size"] < raw["data"]["batch_size"] else 4}
    raw["data"] = {**raw["data"], **sizes, "chunk_size": 2, "workers": 0, "tasks": tasks, "files": files}
    raw["optim"] = {**raw["optim"], "steps": STEPS, "warmup_steps": 1, "decay_steps": 2}
    if "matryoshka" in raw.get("loss", {}):
        raw["loss"]["matryoshka"] = {"dimensions": [16, 32]}
    for teacher in {"teacher", "picture_teacher"} & raw.keys():
        raw[teacher]["vectors"] = str(folder / f"{teacher}.parquet")
    return TrainConfig.model_validate(raw)


def run(config: TrainConfig) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    stage, _ = build_stage(config, Path(config.run_dir))
    assert train(config, stage, Path(config.run_dir), start="tiny")
    return {name: p.detach() for name, p in stage.model.named_parameters() if p.requires_grad}


def run_and_be_killed(config: TrainConfig) -> None:
    """In a process of its own: no handler runs, nothing is written any more."""
    toy_tasks.COUNT = 12
    shown = Progress.update

    def update(progress: Progress, step: int, task: str | None, metrics: dict[str, float]) -> None:
        shown(progress, step, task, metrics)
        if step + 1 == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    Progress.update = update  # type: ignore[method-assign, assignment]
    run(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in every schema that recipes name, their pictures and videos, and teachers' vectors of both."""
    path = tmp_path_factory.mktemp("rows")
    for colour in COLOURS:
        (path / f"{colour}.png").write_bytes(png(colour))
        first, last = (PIL.Image.new("RGB", (64, 64), one) for one in (colour, "white"))
        first.save(path / f"{colour}.gif", save_all=True, append_images=[last])
    for schema, row in ROWS.items():
        (path / f"{schema}.jsonl").write_text("".join(f"{json.dumps(row(colour))}\n" for colour in COLOURS))
    shared: dict[str, Any] = {"schema": "pairs", "task": get_task(DEFAULT), "negatives": None, "cache": path / "cache"}
    vectors = np.random.default_rng(0).normal(size=(len(COLOURS), 6)).astype(np.float32)
    for kind, rows, teacher in TEACHERS:
        keys = [key for key, _ in lone_sides([file_task(str(path / rows), images=path, **shared)], kind)]
        known = [key for key in keys if not key.startswith("something")]  # the queries
        pq.write_table(pa.table({kind: known, "vector": list(vectors)}), path / teacher)
    return path


@pytest.mark.parametrize("recipe", CONFIGS, ids=lambda path: path.stem)
def test_a_killed_run_of_every_recipe_ends_with_the_same_bits(
    recipe: Path, tiny_path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy_tasks, "COUNT", 12)
    whole = run(small(recipe, tiny_path, folder, tmp_path / "whole"))
    killed = small(recipe, tiny_path, folder, tmp_path / "killed")
    context = get_context("forkserver")
    context.set_forkserver_preload(["mllm_embed_training.build", "peft", "transformers"])
    process = context.Process(target=run_and_be_killed, args=(killed,))
    process.start()
    process.join(timeout=300)
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()] == ["step-00000002"]
    random.seed(99)  # whatever the new process has done before
    torch.manual_seed(99)
    resumed = run(killed)
    assert whole
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    metrics = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert [row["loss"] for row in metrics[0]] == [row["loss"] for row in metrics[1]]
    assert len(metrics[0]) == STEPS
