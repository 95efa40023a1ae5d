"""Rows of like length share a chunk, so that little is padded; the step is that of one chunk, whatever the order."""

import json
from pathlib import Path

import pytest
import torch

from mllm_embed_training.build import build_stage
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.contrastive import ContrastiveBatch, ContrastiveStage
from mllm_embed_training.losses import duplicate_mask, first_columns
from mllm_embed_training.objective import Targets
from mllm_embed_training.plan import Draw
from mllm_embed_training.trainer import trainable

LENGTHS = (9, 1, 6, 2, 8, 1, 7, 3)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    lines = [
        {"query": "big " * length, "positive": "red " * (10 - length), "negatives": ["blue " * length]}
        for length in LENGTHS
    ]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return tmp_path / "rows.jsonl"


def stage_of(model: Path, rows: Path, chunk_size: int) -> ContrastiveStage:
    raw = {
        "stage": "contrastive",
        "run_dir": str(rows.parent / "run"),
        "model": {"path": str(model)},
        "loss": {"info_nce": {"temperature": 0.1}},
        "data": {
            "tasks": {"rows": 1},
            "files": {"rows": {"path": str(rows)}},
            "batch_size": 8,
            "group_size": 8,
            "chunk_size": chunk_size,
        },
        "optim": {"steps": 1, "lr": 0.01},
        "bf16": False,
    }
    stage, _ = build_stage(TrainConfig.model_validate(raw), rows.parent / "run")
    assert isinstance(stage, ContrastiveStage)
    return stage


def batch(stage: ContrastiveStage) -> ContrastiveBatch:
    return stage.collate([stage.prepare(Draw("rows", row, (0, 0, row))) for row in range(len(LENGTHS))])


def test_the_shortest_share_a_chunk_and_the_longest(tiny_path: Path, rows: Path) -> None:
    made = batch(stage_of(tiny_path, rows, chunk_size=2))
    widths = [[int(row.sum()) for row in chunk["attention_mask"]] for chunk in made.queries]
    flat = [width for chunk in widths for width in chunk]
    assert flat == sorted(flat)
    word = (max(flat) - min(flat)) // (max(LENGTHS) - min(LENGTHS))
    read = [min(flat) + word * (length - min(LENGTHS)) for length in LENGTHS]  # in the rows' own order
    assert flat == sorted(read)
    padded = sum(chunk["attention_mask"].numel() for chunk in made.queries)
    assert padded < sum(2 * max(pair) for pair in zip(read[::2], read[1::2], strict=True))


def test_the_step_is_that_of_rows_one_by_one_in_their_own_order(tiny_path: Path, rows: Path) -> None:
    stage = stage_of(tiny_path, rows, chunk_size=3)
    metrics = stage.backward(batch(stage))
    gradient = torch.cat([p.grad.flatten() for p in trainable(stage) if p.grad is not None])
    stage.model.zero_grad()

    prepared = [stage.prepare(Draw("rows", row, (0, 0, row))) for row in range(len(LENGTHS))]
    candidates = [one.candidates[place] for place in (0, 1) for one in prepared]
    sides = [[one.query for one in prepared], candidates]
    encoded = [torch.cat([stage._encoder.encode(stage._encoder.chunks([p])[0]) for p in side]) for side in sides]
    query_keys = [one.query_key for one in prepared]
    candidate_keys = [one.candidate_keys[place] for place in (0, 1) for one in prepared]
    labels = torch.arange(len(LENGTHS))
    targets = Targets(labels, duplicate_mask(query_keys, candidate_keys, labels), first=first_columns(candidate_keys))
    expected = stage._loss.value(encoded[0], encoded[1], targets)
    torch.autograd.backward(expected)
    plain = torch.cat([p.grad.flatten() for p in trainable(stage) if p.grad is not None])
    assert metrics["loss"] == pytest.approx(float(expected.detach()), rel=1e-4)
    assert metrics["negatives"] == 13  # of 16 candidates two repeat others, and one is the answer
    assert (gradient - plain).norm() <= 1e-4 * plain.norm()
