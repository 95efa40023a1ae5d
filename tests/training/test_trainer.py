"""Both stages learn, resume exactly and stop cleanly, on drawn shapes and a tiny model."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.model_dir import open_model_dir
from mllm_embed_training import toy_tasks
from mllm_embed_training.build import build_stage, save_result
from mllm_embed_training.config import ConfigError, TrainConfig
from mllm_embed_training.contrastive import _hashes
from mllm_embed_training.errors import TrainingFailed
from mllm_embed_training.plan import Draw
from mllm_embed_training.stage import Metrics, Stage
from mllm_embed_training.trainer import learning_rate, train

TOYS: dict[str, Any] = {"tasks": {"toy-t2i": 1, "toy-edit": 1}, "batch_size": 4, "group_size": 4, "chunk_size": 2}


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_tasks, "COUNT", 24)


def recipe(stage: str, model: Path, run_dir: Path, *, steps: int = 6, **changes: Any) -> TrainConfig:
    answers, pairs = {"toy-caption": 1, "toy-question": 1}, TOYS["tasks"]
    tasks = {"generative": answers, "contrastive": pairs, "joint": {**answers, **pairs}}[stage]
    raw: dict[str, Any] = {
        "stage": stage,
        "run_dir": str(run_dir),
        "model": {"path": str(model)},
        "data": {**TOYS, "tasks": tasks},
        "optim": {"steps": steps, "lr": 0.003, "warmup_steps": 1},
        "bf16": False,
        "checkpoint_every": 3,
    }
    if stage == "contrastive":
        raw["lora"] = {"r": 4, "alpha": 8, "dropout": 0.1, "tower": True}
        raw["loss"] = {"info_nce": {"temperature": 0.1}, "matryoshka": {"dimensions": [16]}}
    return TrainConfig.model_validate({**raw, **changes})


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def losses(run_dir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["generative", "contrastive", "joint"])
def test_a_resumed_run_ends_with_the_same_bits(kind: str, tiny_path: Path, tmp_path: Path) -> None:
    whole = recipe(kind, tiny_path, tmp_path / "whole")
    stage, _ = build_stage(whole, tmp_path / "whole")
    before = weights(stage.model)
    assert train(whole, stage, tmp_path / "whole", start="tiny")
    moved = [name for name, tensor in stage.model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert moved, "training changed nothing"

    part = recipe(kind, tiny_path, tmp_path / "part", steps=3)
    first, _ = build_stage(part, tmp_path / "part")
    assert train(part, first, tmp_path / "part", start="tiny")
    second, _ = build_stage(whole, tmp_path / "part")
    assert train(whole, second, tmp_path / "part", start="tiny")

    for name, tensor in stage.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    assert losses(tmp_path / "whole") == losses(tmp_path / "part")
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("model", {}),
        ("lora", {"lora": {"r": 2, "alpha": 8, "dropout": 0.1, "tower": True}}),
        ("seed", {"seed": 5}),
        ("loss", {"loss": {"info_nce": {"temperature": 0.2}}}),
        ("data.tasks", {"data": {"tasks": {"toy-t2i": 1}, "batch_size": 4, "group_size": 4}}),
        ("data.augment_ink", {"data": {**TOYS, "augment_ink": 0.4}}),
        ("data.augment_texts", {"data": {**TOYS, "augment_texts": 0.1}}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    key: str, change: dict[str, Any], tiny_path: Path, tmp_path: Path
) -> None:
    config = recipe("contrastive", tiny_path, tmp_path, steps=1)
    stage, _ = build_stage(config, tmp_path)
    assert train(config, stage, tmp_path, start="one")
    other = recipe("contrastive", tiny_path, tmp_path, steps=2, **change)
    stage, _ = build_stage(other, tmp_path)
    before = weights(stage.model)
    with pytest.raises(IncompatibleCheckpoint, match=rf"step-00000001 was made with {key} .* but the recipe now says"):
        train(other, stage, tmp_path, start="another" if key == "model" else "one")
    for name, tensor in stage.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_longer_run_at_another_rate_goes_on(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe("contrastive", tiny_path, tmp_path, steps=1)
    stage, _ = build_stage(config, tmp_path)
    assert train(config, stage, tmp_path, start="one")
    longer = recipe("contrastive", tiny_path, tmp_path, optim={"steps": 2, "lr": 0.001}, bf16=True)
    stage, _ = build_stage(longer, tmp_path)
    assert train(longer, stage, tmp_path, start="one")
    assert len(losses(tmp_path)) == 2


def test_a_joint_step_is_of_one_task(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe("joint", tiny_path, tmp_path, steps=12)
    stage, _ = build_stage(config, tmp_path)
    assert train(config, stage, tmp_path, start="tiny")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row["task"] for row in rows} == {"toy-caption", "toy-question", "toy-t2i", "toy-edit"}
    with pytest.raises(ValidationError, match=r"group_size equal to data\.batch_size"):
        recipe("joint", tiny_path, tmp_path, data={"tasks": {"toy-t2i": 1}, "batch_size": 4, "group_size": 2})


def test_a_task_of_the_other_kind_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    data = {"tasks": {"toy-caption": 1}, "batch_size": 4, "group_size": 4}
    with pytest.raises(ConfigError, match="the contrastive stage has no such task: toy-caption; there are"):
        build_stage(recipe("contrastive", tiny_path, tmp_path, data=data), tmp_path)


def test_only_the_answer_is_learned(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe("generative", tiny_path, tmp_path)
    stage, start = build_stage(config, tmp_path)
    (inputs, labels), *_ = stage.collate([stage.prepare(Draw("toy-question", row, (0, 0, row))) for row in range(2)])
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(start.tokenizer_file))
    for row in range(2):
        answer = tokenizer.decode(labels[row][labels[row] != -100].tolist(), skip_special_tokens=False)
        assert answer.endswith("<|im_end|>")
        assert answer.removesuffix("<|im_end|>") in {"yes", "no", *"0123456789"}
        prompt = tokenizer.decode(inputs["input_ids"][row].tolist(), skip_special_tokens=False)
        assert prompt.endswith(f"<|im_start|>assistant\n{answer}")


def test_a_pair_is_rendered_as_the_embedder_renders_it(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe("contrastive", tiny_path, tmp_path)
    stage, start = build_stage(config, tmp_path)
    prepared = [stage.prepare(Draw("toy-edit", row, (0, 0, row))) for row in range(3)]
    batch = stage.collate(prepared)
    assert [len(chunk["input_ids"]) for chunk in batch.queries] == [2, 1]
    assert [len(chunk["input_ids"]) for chunk in batch.candidates] == [2, 2, 2]  # three positives, three negatives
    assert (batch.query_keys.shape, batch.candidate_keys.shape) == ((3,), (6,))

    from mllm_embed.prompts import PromptRenderer
    from mllm_embed.tasks import get_task
    from mllm_embed.types import EmbedInput, Image, Text

    scene = toy_tasks.pair_tasks()["toy-edit"]().rows[0]
    item = EmbedInput((Image(scene.image), Text(scene.edit.sentence)))
    renderer = PromptRenderer(start.tokenizer_file, start.family, start.template)
    prompt = renderer.render(item, get_task("composed").query, [scene.image])
    chunk, place = divmod(batch.query_keys.tolist().index(int(_hashes([prepared[0].query_key]))), 2)
    read = {name: batch.queries[chunk][name][place] for name in ("input_ids", "attention_mask")}
    row = read["input_ids"][read["attention_mask"] == 1].tolist()
    slots = row.count(renderer.image_token_id)
    at = prompt.token_ids.index(renderer.image_token_id)
    assert row == [*prompt.token_ids[:at], *[renderer.image_token_id] * slots, *prompt.token_ids[at + 1 :]]


def test_contrastive_training_learns_its_rows(tiny_path: Path, tmp_path: Path) -> None:
    changes = {"data": {"tasks": {"toy-t2i": 1}, "batch_size": 12, "group_size": 12, "chunk_size": 12}}
    config = recipe("contrastive", tiny_path, tmp_path, steps=24, **changes)
    stage, _ = build_stage(config, tmp_path)
    assert train(config, stage, tmp_path, start="tiny")
    values = losses(tmp_path)
    assert sum(values[-5:]) < 0.9 * sum(values[:5])


def test_the_result_is_a_model_directory(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe("contrastive", tiny_path, tmp_path / "run", steps=2)
    stage, start = build_stage(config, tmp_path / "run")
    assert train(config, stage, tmp_path / "run", start="tiny")
    save_result(stage, start, config, tmp_path / "run" / "model")
    result = open_model_dir(tmp_path / "run" / "model")
    assert result.weights == tiny_path.resolve()
    assert result.adapter == (tmp_path / "run" / "model").resolve()
    assert result.recipe.matryoshka_dimensions == (16,)


class Broken:
    """A stage whose third batch goes wrong in a chosen way."""

    def __init__(self, *, loss: float = 1.0, kill: bool = False) -> None:
        self.model: nn.Module = nn.Linear(2, 1)
        self.tasks: Mapping[str, Any] = {}
        self.sizes = {"toy-caption": 4, "toy-question": 4}
        self.answers: dict[str, Any] = {}
        self._loss = loss
        self._kill = kill
        self._seen = 0

    def prepare(self, draw: Draw) -> int:
        return draw.row

    def collate(self, prepared: Any) -> int:
        return len(prepared)

    def backward(self, batch: int) -> Metrics:
        self._seen += 1
        torch.autograd.backward(self.model(torch.ones(batch, 2)).mean())
        if self._seen == 3 and self._kill:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": self._loss if self._seen == 3 else 1.0, "tokens": 1.0}


def test_a_loss_that_is_not_finite_ends_the_run(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe("generative", tiny_path, tmp_path)
    stage: Stage = Broken(loss=float("nan"))
    with pytest.raises(TrainingFailed, match="the loss is nan at step 2"):
        train(config, stage, tmp_path, start="tiny")


def test_sigterm_writes_a_checkpoint_and_returns(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe("generative", tiny_path, tmp_path, checkpoint_every=100)
    assert not train(config, Broken(kill=True), tmp_path, start="tiny")
    assert len(losses(tmp_path)) == 3
    assert train(config, Broken(), tmp_path, start="tiny")
    assert len(losses(tmp_path)) == 6


def test_the_rate_warms_up_stays_and_falls(tiny_path: Path, tmp_path: Path) -> None:
    optim = recipe(
        "generative",
        tiny_path,
        tmp_path,
        optim={
            "steps": 100,
            "lr": 1.0,
            "warmup_steps": 10,
            "decay_steps": 20,
        },
    ).optim
    assert [learning_rate(optim, step) for step in (0, 9, 50, 79, 90, 99)] == pytest.approx([0.1, 1, 1, 1, 0.5, 0.05])
