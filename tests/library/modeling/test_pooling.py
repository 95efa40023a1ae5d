from __future__ import annotations

import pytest
import torch

from mllm_embed.modeling.pooling import last_token, mean_of_tokens


def test_the_last_real_token_is_taken_under_either_padding() -> None:
    hidden = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3)  # [B, S, D]
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]])
    assert torch.equal(last_token(hidden, mask), torch.stack([hidden[0, 1], hidden[1, 3]]))


def test_gradient_flows_to_that_token_alone() -> None:
    hidden = torch.zeros(1, 3, 2, requires_grad=True)
    last_token(hidden, torch.tensor([[1, 1, 0]])).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.sum(dim=-1).tolist() == [[0.0, 2.0, 0.0]]


@pytest.mark.parametrize("mask", [[[1, 1, 0], [1, 1, 1]], [[0, 1, 1], [1, 1, 1]]], ids=["right", "left"])
def test_the_mean_leaves_padding_out(mask: list[list[int]]) -> None:
    hidden = torch.arange(12.0).reshape(2, 3, 2)
    real = torch.tensor(mask)
    expected = torch.stack([row[keep.bool()].mean(dim=0) for row, keep in zip(hidden, real, strict=True)])
    torch.testing.assert_close(mean_of_tokens(hidden, real), expected)
