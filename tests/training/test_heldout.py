"""Held-out retrieval while training: the right number, of the model that will be served, without touching the run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner

from mllm_embed.embedder import Embedder
from mllm_embed.evaluation.eval_types import EvalTask, Part, Query
from mllm_embed.model_dir import open_model_dir
from mllm_embed.types import EmbedInput, Text
from mllm_embed_training import toy_tasks
from mllm_embed_training.build import build_heldout, build_stage, save_result
from mllm_embed_training.cli import train as train_command
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.heldout import HeldOut
from mllm_embed_training.trainer import train

WORDS = ("red", "green", "blue", "black", "white")


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_tasks, "COUNT", 12)


def recipe(model: Path, folder: Path, run_dir: Path, **changes: Any) -> TrainConfig:
    rows = [{"query": f"something {word}", "positive": word, "negatives": ["nothing"]} for word in WORDS]
    (folder / "heldout.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    raw = {
        "stage": "contrastive",
        "run_dir": str(run_dir),
        "model": {"path": str(model)},
        "lora": {"r": 4, "alpha": 8, "dropout": 0.3},
        "loss": {"info_nce": {"temperature": 0.1}},
        "data": {"tasks": {"toy-t2i": 1}, "batch_size": 4, "group_size": 4, "chunk_size": 4},
        "optim": {"steps": 5, "lr": 0.01, "warmup_steps": 1},
        "evaluate": {"every": 2, "files": {"words": {"path": str(folder / "heldout.jsonl")}}},
        "bf16": False,
        **changes,
    }
    return TrainConfig.model_validate(raw)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_measuring_changes_nothing_and_the_command_keeps_the_best(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(tiny_path, tmp_path, tmp_path / "measured")
    (tmp_path / "recipe.yaml").write_text(config.model_dump_json(by_alias=True))
    app = typer.Typer()
    app.command()(train_command)
    answer = CliRunner().invoke(app, [str(tmp_path / "recipe.yaml")])
    assert answer.exit_code == 0, answer.output
    measured = lines(tmp_path / "measured" / "heldout.jsonl")
    assert [row["step"] for row in measured] == [2, 4, 5]
    assert all(row["mean"] == row["words"] for row in measured)
    assert (tmp_path / "measured" / "heldout.png").stat().st_size > 0
    assert open_model_dir(str(tmp_path / "measured" / "best")).adapter is not None

    plain = recipe(tiny_path, tmp_path, tmp_path / "plain", evaluate=None)
    stage, _ = build_stage(plain, tmp_path / "plain")
    assert train(plain, stage, tmp_path / "plain", start="tiny")
    losses = [[row["loss"] for row in lines(tmp_path / name / "metrics.jsonl")] for name in ("measured", "plain")]
    assert losses[0] == losses[1]


def test_what_is_measured_is_what_will_be_served(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(tiny_path, tmp_path, tmp_path / "run")
    stage, start = build_stage(config, tmp_path / "run")
    heldout = build_heldout(config, stage, start)
    assert heldout is not None
    assert train(config, stage, tmp_path / "run", start="tiny")
    (task,) = heldout._tasks
    found = heldout._embed(list(task.items()))
    save_result(stage, start, config, tmp_path / "run" / "model")
    with Embedder.load(str(tmp_path / "run" / "model"), backend="transformers", precision="float32") as embedder:
        served = embedder.embed(list(task.items()))
    assert np.abs(found - served).max() < 1e-5
    assert stage.model.training, "the mode is left as it was"


class Known:
    """A model whose vectors are the angles that texts name."""

    def __call__(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
        texts = [item.content[0] for item in items]
        angles = np.deg2rad([float(text.text) for text in texts if isinstance(text, Text)])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def ranking(queries: Sequence[tuple[str, int]], candidates: Sequence[str]) -> EvalTask:
    asked = tuple(Query(EmbedInput.of(text), (truth,), ("test",)) for text, truth in queries)
    return EvalTask("angles", "retrieval", (Part("all", asked, tuple(map(EmbedInput.of, candidates))),), "test")


def test_the_score_is_the_share_of_queries_answered_first(tmp_path: Path) -> None:
    task = ranking([("1", 0), ("44", 1), ("80", 1)], ["0", "45", "90"])
    heldout = HeldOut(tmp_path, [task], Known(), every=10)
    assert heldout.measure(10)
    assert lines(tmp_path / "heldout.jsonl") == [{"step": 10, "mean": 2 / 3, "angles": 2 / 3}]
    assert not heldout.measure(20), "as good is not better"


def test_a_resumed_run_forgets_what_it_will_measure_again(tmp_path: Path) -> None:
    heldout = HeldOut(tmp_path, [ranking([("1", 0)], ["0", "90"])], Known(), every=10)
    for done in (10, 20, 10):
        heldout.measure(done)
    assert [row["step"] for row in lines(tmp_path / "heldout.jsonl")] == [10]
    assert [done for done in range(1, 26) if heldout.is_due(done, 25)] == [10, 20, 25]


def test_nothing_to_measure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluate needs suite or files"):
        recipe(tmp_path, tmp_path, tmp_path, evaluate={"every": 3})
