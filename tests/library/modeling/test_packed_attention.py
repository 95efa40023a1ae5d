"""The packed kernel gives the vectors and gradients of transformers' own loop over pictures, in both families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mllm_embed.modeling import packed_attention
from mllm_embed.modeling.loading import load_base
from mllm_embed.modeling.packed_attention import use_packed_attention

SIZES = [[1, 6, 6], [1, 4, 6], [1, 6, 6], [1, 6, 4], [1, 8, 8]]
"""Patches of five pictures: lengths 36, 24, 36, 24 and 64 in turn, so that a wrong order shows."""


def run(tower: Any, patches: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tower's states, and the gradient of the first weight."""
    tower.zero_grad()
    states: Tensor = tower(patches, grid_thw=grid).pooler_output
    torch.autograd.backward((states * torch.linspace(-1, 1, states.shape[-1])).sum())
    return states.detach(), next(tower.parameters()).grad.clone()


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("sizes", [SIZES, SIZES[:1] * 3], ids=["mixed", "equal"])
def test_the_numbers_are_those_of_the_loop(
    family: str, kernel: Any, sizes: list[list[int]], tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    dense = packed_attention._KERNELS[kernel]

    def counted(*rows: Any) -> Tensor:
        calls.append(1)
        return dense(*rows)

    monkeypatch.setitem(packed_attention._KERNELS, kernel, counted)
    model: Any = load_base(tiny_model(family), attention=kernel)
    grid = torch.tensor(sizes)
    torch.manual_seed(0)
    config = model.config.vision_config
    width = 3 * config.temporal_patch_size * config.patch_size**2
    patches = torch.randn(int(grid.prod(1).sum()), width)

    tower = model.model.visual
    packed = run(tower, patches, grid)
    depth = len(tower.blocks)
    if family != "qwen2_5_vl":  # whose windows have lengths of their own
        assert len(calls) == depth * len({h * w for _, h, w in sizes}), "once per layer and length, not per picture"
    tower.config._attn_implementation = kernel
    looped = run(tower, patches, grid)
    for ours, theirs in zip(packed, looped, strict=True):
        assert torch.linalg.norm(ours - theirs) < 1e-4 * torch.linalg.norm(theirs)


def test_the_flash_kernels_are_left_alone(tiny_model: Callable[[str], Path]) -> None:
    model: Any = load_base(tiny_model("qwen3_vl"))
    tower = model.model.visual
    tower.config._attn_implementation = "flash_attention_2"
    use_packed_attention(model, "flash_attention_2")
    assert tower.config._attn_implementation == "flash_attention_2"
