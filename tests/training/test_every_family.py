"""A tuned model of every family goes through the whole house: one step, saved, checked, exported, embedded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from safetensors.torch import load_file

from mllm_embed.commands import probes
from mllm_embed.embedder import Embedder
from mllm_embed.families import FAMILIES
from mllm_embed.model_dir import open_model_dir
from mllm_embed_training import toy_tasks
from mllm_embed_training.build import build_stage, save_result
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.export import export
from mllm_embed_training.trainer import train


def one_step(model: Path, run_dir: Path) -> TrainConfig:
    raw: dict[str, Any] = {
        "stage": "contrastive",
        "run_dir": str(run_dir),
        "model": {"path": str(model)},
        "data": {"tasks": {"toy-t2i": 1, "toy-edit": 1}, "batch_size": 4, "group_size": 4, "chunk_size": 2},
        "lora": {"r": 4, "alpha": 8, "tower": True},
        "optim": {"steps": 1, "lr": 0.01, "warmup_steps": 0},
        "bf16": False,
    }
    return TrainConfig.model_validate(raw)


def weight_names(folder: Path) -> set[str]:
    return set(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tuned_model_is_saved_checked_exported_and_embeds(
    family: str,
    tiny_model: Callable[[str], Path],
    draw: Callable[..., PIL.Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(toy_tasks, "COUNT", 24)
    config = one_step(tiny_model(family), tmp_path)
    stage, start = build_stage(config, tmp_path)
    assert train(config, stage, tmp_path, start="tiny")
    moved = [name for name, tensor in stage.model.named_parameters() if "lora_B" in name and tensor.any()]  # from zero
    for part in (start.family.tower, start.family.language_model):
        assert [name for name in moved if f".{part}." in name], f"{part} has learnt nothing"

    save_result(stage, start, config, tmp_path / "tuned")
    tuned = open_model_dir(tmp_path / "tuned")
    checked = list(probes.run(tuned, "transformers", "float32", lambda _: None))
    assert not [result for result in checked if result.passed is False]

    export(tuned, None, tmp_path / "whole", name="whole", dtype="float32")
    assert weight_names(tmp_path / "whole") == weight_names(start.weights), "engines look for the names of the hub"
    items: list[Any] = ["a red cat", draw(1), (draw(2, 150, 60), "what is it")]
    with (
        Embedder.load(tmp_path / "tuned", backend="transformers") as adapted,
        Embedder.load(tmp_path / "whole", backend="transformers") as merged,
    ):
        np.testing.assert_allclose(adapted.embed(items), merged.embed(items), atol=1e-4)
