"""Losses are computed in blocks of rows: the same numbers, and no memory that grows with the square of the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mllm_embed_training.losses import row_blocks, similarity_distillation
from mllm_embed_training.objective import LossSection, Targets

pytestmark = pytest.mark.fast

ROWS, WIDTH = 48, 6
SETTINGS: dict[str, dict[str, Any]] = {
    "info_nce": {"temperature": 0.3, "hardness": 2.0, "hardest": 5, "false_negative_margin": 0.4},
    "one_to_k": {"k": 2},
}
"""Where a term's defaults are not the whole of it."""
Loss = Callable[[Tensor, Tensor], Tensor]


def targets() -> Targets:
    """Of candidates that are positives, second positives and negatives, in this order."""
    generator = torch.Generator().manual_seed(1)
    own = torch.eye(ROWS, dtype=torch.float64).repeat(1, 3)
    grades = own.clone()
    grades[:, ROWS : 2 * ROWS] *= 0.5
    grades[:, 2 * ROWS :] = 0
    scores = torch.where(own > 0, torch.rand(own.shape, generator=generator, dtype=torch.float64), torch.nan)
    excluded = torch.rand(own.shape, generator=generator) < 0.2
    excluded[torch.arange(ROWS), torch.arange(ROWS)] = False
    guide = torch.randn(ROWS, 5, generator=generator, dtype=torch.float64)
    return Targets(torch.arange(ROWS), excluded | ((grades > 0) & (grades < 1)), grades, scores, guide)


def losses() -> dict[str, Loss]:
    """Every loss of a recipe, and the one that distils."""
    marks, teacher = targets(), targets().guide
    assert teacher is not None
    named: dict[str, Loss] = {"distillation": lambda q, c: similarity_distillation(torch.cat([q, c[:ROWS]]), twice)}
    twice = torch.cat([teacher, -teacher])
    for name in sorted(set(LossSection.model_fields) - {"matryoshka"}):
        section = LossSection.model_validate({name: SETTINGS.get(name, {}), "matryoshka": {"dimensions": [4]}})
        named[name] = lambda q, c, section=section: section.value(q, c, marks)  # type: ignore[misc]
    return named


def value_and_gradients(loss: Loss) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) for n in (ROWS, 3 * ROWS)]
    queries, candidates = (vector.requires_grad_() for vector in vectors)
    value = loss(queries, candidates)
    return value, *torch.autograd.grad(value, [queries, candidates], allow_unused=True, materialize_grads=True)


class Largest(TorchDispatchMode):
    """Notes the most numbers that a tensor of floats has had."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.is_floating_point():
            self.numbers = max(self.numbers, made.numel())
        return made


def memory(loss: Loss) -> tuple[int, int]:
    """The most numbers that a tensor of floats has had, and how many are kept for the way back."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel() if tensor.is_floating_point() else 0
        return tensor

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value_and_gradients(loss)
    return largest.numbers, sum(kept.values())


@pytest.mark.parametrize("name", losses())
@pytest.mark.parametrize("block", [1, 5 * 3 * ROWS])
def test_blocks_change_no_value_and_no_gradient(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = value_and_gradients(losses()[name])
    monkeypatch.setattr(row_blocks, "BLOCK", block)
    for part, expected in zip(value_and_gradients(losses()[name]), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(losses().keys() - {"score_distillation"}))  # which looks at own candidates only
def test_no_matrix_of_all_pairs_is_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the way forward nor back: the largest floats are the vectors, and a block of two rows."""
    loss = losses()[name]
    whole, whole_kept = memory(loss)
    monkeypatch.setattr(row_blocks, "BLOCK", 2 * 3 * ROWS)
    blocks, blocks_kept = memory(loss)
    vectors = 3 * ROWS * WIDTH
    assert blocks <= vectors
    if name != "alignment":  # which compares no pairs but the right ones
        assert whole > vectors, "the test would see a matrix"
        assert blocks_kept < whole_kept / 2


def test_a_batch_that_fits_into_one_block_is_computed_once() -> None:
    seen: list[slice] = []

    def total(rows: slice) -> Tensor:
        seen.append(rows)
        return weights[rows].square().sum()

    weights = torch.ones(8, requires_grad=True)
    row_blocks.mean_by_rows(total, 8, 8).backward()
    assert len(seen) == 1
