"""Losses that need more of a row than a pair: a judge's scores, K positives, a guide's vectors."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from mllm_embed_training.build import build_stage
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.contrastive import ContrastiveBatch, ContrastiveStage
from mllm_embed_training.errors import CorruptRow
from mllm_embed_training.plan import Draw
from mllm_embed_training.trainer import train

WORDS = ("red", "green", "blue", "black")


def a_row(word: str, **changes: Any) -> dict[str, Any]:
    return {
        "query": f"something {word}",
        "positives": [word, f"{word} it is"],
        "negatives": [f"not {word}", "nothing", "none"],
        "positive_score": 0.9,
        "negative_scores": [0.2, 0.1, 0.3],
        **changes,
    }


def recipe(model: Path, folder: Path, loss: dict[str, Any], **changes: Any) -> TrainConfig:
    raw = {
        "stage": "contrastive",
        "run_dir": str(folder / "run"),
        "model": {"path": str(model)},
        "lora": {"r": 2, "alpha": 4, "dropout": 0},
        "loss": loss,
        "data": {
            "tasks": {"rows": 1},
            "files": {"rows": {"path": str(folder / "rows.jsonl"), "negatives": 2}},
            "batch_size": 4,
            "group_size": 4,
        },
        "optim": {"steps": 2, "lr": 0.01},
        "bf16": False,
        **changes,
    }
    return TrainConfig.model_validate(raw)


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def a_guide(folder: Path) -> dict[str, Any]:
    texts = [f"something {word}" for word in WORDS]
    vectors = list(np.random.default_rng(0).normal(size=(len(texts), 5)).astype(np.float32))
    pq.write_table(pa.table({"text": texts, "vector": vectors}), folder / "guide.parquet")
    return {"teacher": {"vectors": str(folder / "guide.parquet")}}


@pytest.mark.parametrize("name", ["score_distillation", "one_to_k", "cwcl"])
def test_a_recipe_trains_by_it(name: str, tiny_path: Path, tmp_path: Path) -> None:
    write(tmp_path, [a_row(word) for word in WORDS])
    changes = a_guide(tmp_path) if name == "cwcl" else {}
    config = recipe(tiny_path, tmp_path, {name: {"k": 2} if name == "one_to_k" else {}}, **changes)
    stage, _ = build_stage(config, tmp_path / "run")
    assert train(config, stage, tmp_path / "run", start="tiny")
    values = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert values[0] != values[1]


def test_scores_follow_their_negatives_when_some_are_drawn(tiny_path: Path, tmp_path: Path) -> None:
    write(tmp_path, [a_row(word) for word in WORDS])
    stage, _ = build_stage(recipe(tiny_path, tmp_path, {"score_distillation": {}}), tmp_path / "run")
    assert isinstance(stage, ContrastiveStage)
    noted = {"red": 0.9, "not red": 0.2, "nothing": 0.1, "none": 0.3}
    for seed in range(8):
        example = stage.prepare(Draw("rows", 0, (0, 0, seed)))
        drawn = stage.tasks["rows"].draw(a_row("red"), random.Random(str((0, 0, seed))))
        sides = [drawn.positive, *drawn.also, *drawn.negatives]
        wanted = [noted.get(side.texts()[0], float("nan")) for side in sides]
        np.testing.assert_equal(example.scores, wanted)
    batch = stage.collate([stage.prepare(Draw("rows", row, (0, 0, row))) for row in range(4)])
    assert isinstance(batch, ContrastiveBatch)
    assert batch.judged.shape == (12, 2)  # the positive and two negatives of each row
    positives = batch.judged[:, 1] == batch.labels[batch.judged[:, 0]]
    assert torch.equal(batch.scores[positives], torch.full((4,), 0.9))
    assert (batch.scores[~positives] < 0.9).all()


@pytest.mark.parametrize(
    ("loss", "row", "lack"),
    [
        ({"score_distillation": {}}, {"negative_scores": None}, "the row has 2 negatives and 0 scores"),
        ({"score_distillation": {}}, {"negative_scores": [0.1]}, "the row has 2 negatives and 2 scores"),
        ({"score_distillation": {}}, {"positive_score": "high"}, "positive_score must be a number"),
        ({"one_to_k": {"k": 3}}, {}, r"loss\.one_to_k needs 3 positives, but the row has 2"),
        ({"cwcl": {}}, {"query": "something else"}, "has no vector of the text 'something else'"),
    ],
)
def test_a_row_that_lacks_it_is_corrupt(
    loss: dict[str, Any], row: dict[str, Any], lack: str, tiny_path: Path, tmp_path: Path
) -> None:
    write(tmp_path, [a_row("red", **row)])
    changes = a_guide(tmp_path) if "cwcl" in loss else {}
    stage, _ = build_stage(recipe(tiny_path, tmp_path, loss, **changes), tmp_path / "run")
    with pytest.raises(CorruptRow, match=lack):
        stage.prepare(Draw("rows", 0, (0, 0, 0)))


@pytest.mark.parametrize(
    ("loss", "changes", "says"),
    [
        ({"cwcl": {}}, {}, "need a teacher section"),
        ({"info_nce": {}}, {"teacher": {"vectors": "x"}}, "nothing else has one"),
        ({"one_to_k": {}}, {}, "Field required"),
        ({"one_to_k": {"k": 1}}, {}, "greater than or equal to 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    loss: dict[str, Any], changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match=says):
        recipe(tmp_path, tmp_path, loss, **changes)
