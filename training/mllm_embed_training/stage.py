"""What the loop needs of a stage: make a batch from draws, and turn a batch into gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn

from mllm_embed_training.plan import Draw

Metrics = dict[str, float]


class Stage(Protocol):
    """One kind of training."""

    sizes: dict[str, int]
    """Rows per task."""
    model: nn.Module
    """The model, trainable parameters marked, on its device."""

    def collate(self, draws: Sequence[Draw]) -> Any:
        """Make one batch on the CPU; must be a pure function of the draws."""
        ...

    def backward(self, batch: Any) -> Metrics:
        """Compute the loss of a batch and leave its gradients; return at least `loss` and `tokens`."""
        ...
