"""Checkpointing changes what a forward pass keeps, and no bit of a gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy

from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.loading import load_base
from mllm_embed.types import EmbedInput
from mllm_embed_training import recompute
from mllm_embed_training.build import add_lora
from mllm_embed_training.config import LoraSection, ModelSection
from mllm_embed_training.prompt_encoder import PromptEncoder
from mllm_embed_training.recompute import Checkpointing, use_checkpointing


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model's products have 64 inner numbers, its adapter's 4."""
    monkeypatch.setattr(recompute, "CHEAP", 8)


def encoder_of(model_dir: ModelDir, kind: Checkpointing) -> PromptEncoder:
    torch.manual_seed(0)
    model: Any = load_base(model_dir.weights)
    use_checkpointing(model, kind)
    tuned = add_lora(model, model_dir, LoraSection(r=4, alpha=16, dropout=0.2, tower=True), soft_prompt=0)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return PromptEncoder(model_dir, tuned.train(), chunk_size=4, device=torch.device("cpu"), bf16=False)


def step(path: Path, kind: Checkpointing) -> dict[str, Tensor]:
    """Gradients of a pass under dropout."""
    encoder = encoder_of(open_model_dir(path), kind)
    texts = ["two blue cats", "a tree beside a tree", "red", "a red circle on a white square"]
    (chunk,) = encoder.chunks([encoder.render(EmbedInput.of(text), "") for text in texts])
    torch.manual_seed(1)
    torch.autograd.backward(encoder.encode(chunk).square().sum())
    return {name: p.grad for name, p in encoder.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["selective", True])
def test_no_bit_of_a_gradient_changes_under_dropout(kind: Checkpointing, tiny_path: Path) -> None:
    expected, found = step(tiny_path, False), step(tiny_path, kind)
    assert found.keys() == expected.keys()
    assert all(gradient.norm() > 0 for gradient in expected.values())
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_products_are_kept_that_widen() -> None:
    save, again = CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE
    mm, addmm, mul = torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.mul.Tensor
    rows, wide, bias = torch.ones(3, 16), torch.ones(16, 20), torch.ones(20)
    policy = recompute._policy
    assert (policy(None, mm, rows, wide), policy(None, addmm, bias, rows, wide)) == (save, save)
    assert policy(None, mm, rows, wide[:, :16]) == again, "as many as before"
    assert policy(None, mm, rows[:, :8], wide[:8]) == again, "an adapter's"
    assert policy(None, mul, rows, rows) == again


def test_recipes_know_three_kinds() -> None:
    kinds = [ModelSection(path="x", gradient_checkpointing=kind).gradient_checkpointing for kind in (False, True)]
    assert kinds == [False, True]
    assert ModelSection.model_validate({"path": "x", "gradient_checkpointing": "selective"}).gradient_checkpointing
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        ModelSection.model_validate({"path": "x", "gradient_checkpointing": "most"})
