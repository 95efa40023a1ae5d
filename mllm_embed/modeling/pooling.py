"""Token states -> one vector per row: pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def last_token(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Take each row's last real token; safe for left and right padding.

    Args:
        hidden: final hidden states, shape [B, S, D].
        attention_mask: 1 for real tokens, 0 for padding, shape [B, S].

    Returns:
        shape [B, D], the dtype of `hidden`.
    """
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    last = (attention_mask * positions).argmax(dim=1)  # [B]
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]


def mean_of_tokens(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Average each row's real tokens, in float32; safe for left and right padding.

    Args:
        hidden: final hidden states, shape [B, S, D].
        attention_mask: 1 for real tokens, 0 for padding, shape [B, S].

    Returns:
        shape [B, D], the dtype of `hidden`.
    """
    real = attention_mask.unsqueeze(-1).float()  # [B, S, 1]
    return ((hidden.float() * real).sum(dim=1) / real.sum(dim=1)).to(hidden.dtype)
