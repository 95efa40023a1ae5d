"""A frozen tower looks at each picture once a step, and every bit of the gradients is as if it had looked twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from torch import Tensor, nn

from mllm_embed.families import FAMILIES
from mllm_embed.model_dir import open_model_dir
from mllm_embed.types import EmbedInput
from mllm_embed_training import toy_tasks
from mllm_embed_training.build import build_stage
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.contrastive import ContrastiveStage
from mllm_embed_training.frozen_tower import SEEN, can_look_ahead
from mllm_embed_training.plan import Draw
from mllm_embed_training.prompt_encoder import PromptEncoder

BESIDE = {"mllama", "phi4_multimodal"}
"""Families that take pixels only."""


def stage_of(path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch, **recipe: Any) -> ContrastiveStage:
    """A stage of random LoRA weights, with dropout."""
    monkeypatch.setattr(toy_tasks, "COUNT", 12)
    raw: dict[str, Any] = {
        "stage": "contrastive",
        "run_dir": str(run_dir),
        "model": {"path": str(path)},
        "lora": {"r": 2, "alpha": 4, "dropout": 0.2},
        "data": {"tasks": {"toy-edit": 1}, "batch_size": 4, "group_size": 4, "chunk_size": 2},
        "optim": {"steps": 1, "lr": 0.01},
        "bf16": False,
        **recipe,
    }
    stage, _ = build_stage(TrainConfig.model_validate(raw), run_dir)
    assert isinstance(stage, ContrastiveStage)
    for name, parameter in stage.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    stage.model.train()
    return stage


def gradients(stage: ContrastiveStage) -> tuple[dict[str, Tensor], int, int]:
    """Those of a step, how often the tower looked, and the number of chunks, which all have pictures."""
    looks: list[int] = []
    tower = next(module for name, module in stage.model.named_modules() if name.endswith(".visual"))
    watched = tower.register_forward_hook(lambda *_: looks.append(1))
    torch.manual_seed(3)
    batch = stage.collate([stage.prepare(Draw("toy-edit", row, (0, 0, row))) for row in range(4)])
    stage.backward(batch)
    watched.remove()
    chunks = [*batch.queries, *batch.candidates]
    assert all("pixel_values" in chunk for chunk in chunks)
    taken = {name: p.grad.clone() for name, p in stage.model.named_parameters() if p.grad is not None}
    stage.model.zero_grad()
    return taken, len(looks), len(chunks)


def test_one_look_gives_the_gradients_of_two(tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(tiny_path, tmp_path, monkeypatch)
    once, looks, chunks = gradients(stage)
    assert looks == chunks
    monkeypatch.setattr(PromptEncoder, "looked_at", lambda _, chunks: chunks)
    twice, looks, _ = gradients(stage)
    assert looks == 2 * chunks - 1, "the last chunk's graph is kept from the first pass"
    assert once.keys() == twice.keys()
    assert all(gradient.norm() > 0 for gradient in twice.values())
    assert [name for name in once if not torch.equal(once[name], twice[name])] == []


@pytest.mark.parametrize(
    "recipe",
    [{"lora": {"r": 2, "tower": True}}, {"lora": None}, {"lora": None, "model": {"frozen": ["tower"]}}],
    ids=["adapted tower", "all weights", "tuned projector"],
)
def test_what_is_trained_looks_in_every_pass(
    recipe: dict[str, Any], tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {**recipe, "model": {"path": str(tiny_path), **recipe.get("model", {})}}
    stage = stage_of(tiny_path, tmp_path, monkeypatch, **changed)
    taken, looks, chunks = gradients(stage)
    assert looks == 2 * chunks - 1
    assert any("visual" in name for name in taken), "something that sees has learnt"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_computes_the_same_from_what_was_seen(
    family: str, tiny_model: Callable[[str], Path], draw: Callable[..., PIL.Image.Image]
) -> None:
    from mllm_embed.modeling.loading import load_model

    model_dir = open_model_dir(tiny_model(family))
    model = load_model(model_dir).requires_grad_(False)
    assert can_look_ahead(model, model_dir.family) == (family not in BESIDE)
    encoder = PromptEncoder(model_dir, model, chunk_size=3, device=torch.device("cpu"), bf16=False)
    items = [EmbedInput.of(draw(1), "a picture"), EmbedInput.of("no picture"), EmbedInput.of(draw(2), draw(3))]
    (chunk,) = encoder.chunks([encoder.render(item, "") for item in items])
    (seen,) = encoder.looked_at([chunk])
    assert (SEEN in seen) == (family not in BESIDE)
    assert ("pixel_values" in seen) != (SEEN in seen) or family == "phi4_multimodal"
    with torch.no_grad():
        assert torch.equal(encoder.encode(seen), encoder.encode(chunk))
