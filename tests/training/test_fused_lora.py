"""Our LoRA layers give PEFT's numbers, gradients and files."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mllm_embed.modeling import torch_compat
from mllm_embed_training.fused_lora import fuse_lora


@pytest.fixture
def layers() -> tuple[Any, Any]:
    """The same adapted layer twice, PEFT's and ours, dropout on."""
    torch_compat.apply()  # PEFT imports what needs it
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=12, lora_dropout=0.3, target_modules=["0"])
    plain: Any = nn.Sequential(nn.Linear(6, 5))
    theirs: Any = get_peft_model(plain, config)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    ours = copy.deepcopy(theirs)
    fuse_lora(ours)
    assert [name for name, module in ours.named_modules() if "forward" in vars(module)] == ["base_model.model.0"]
    return theirs, ours


def step(model: Any) -> list[Tensor]:
    """Output and gradients of a batch under dropout."""
    torch.manual_seed(1)
    rows = torch.randn(2, 4, 6, requires_grad=True)
    model.zero_grad()
    output = model(rows)
    torch.autograd.backward(output.square().sum())
    found = [output, rows.grad, *(p.grad for p in model.parameters() if p.requires_grad)]
    return [tensor for tensor in found if tensor is not None]


def test_output_and_gradients_under_dropout_are_pefts(layers: tuple[Any, Any]) -> None:
    theirs, ours = (step(layer) for layer in layers)
    assert len(ours) == 4
    for own, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)


def test_a_layer_without_its_adapter_is_the_base_layer(layers: tuple[Any, Any]) -> None:
    theirs, ours = layers
    rows = torch.ones(2, 6)
    with ours.disable_adapter(), theirs.disable_adapter():
        assert torch.equal(ours(rows), theirs(rows))
    ours.eval().merge_adapter()
    merged = ours(rows)
    ours.unmerge_adapter()
    torch.testing.assert_close(merged, ours(rows))


def test_an_adapter_in_float32_fits_a_base_in_bfloat16(layers: tuple[Any, Any]) -> None:
    for layer in layers:
        layer.base_model.model[0].base_layer.to(torch.bfloat16)
        layer.eval()
    rows = torch.randn(2, 4, 6, dtype=torch.bfloat16)
    theirs, ours = (layer(rows) for layer in layers)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_names_of_weights_are_pefts(layers: tuple[Any, Any]) -> None:
    theirs, ours = layers
    assert list(ours.state_dict()) == list(theirs.state_dict())
