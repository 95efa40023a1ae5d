"""What the loop needs of a stage: make a batch from draws, and turn a batch into gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mllm_embed_training.examples import ExampleTask
from mllm_embed_training.plan import Draw

Metrics = dict[str, float]


class Stage(Protocol):
    """One kind of training."""

    tasks: Mapping[str, ExampleTask[Any]]
    """The mixture's tasks, by name."""
    sizes: dict[str, int]
    """Rows per task."""
    model: nn.Module
    """The model, trainable parameters marked, on its device."""

    @property
    def answers(self) -> Mapping[str, Callable[[], NDArray[np.int64]]]:
        """By task that can tell: reads which rows have the same answer, one number per row."""
        ...

    def prepare(self, draw: Draw) -> Any:
        """Make one example ready on the CPU; must be a pure function of the draw.

        Raises:
            CorruptRow: its row cannot become an example.
            InputError: its pictures cannot be read, or it is too long.
        """
        ...

    def collate(self, prepared: Sequence[Any]) -> Any:
        """Make one batch of what `prepare` returned, on the CPU."""
        ...

    def backward(self, batch: Any) -> Metrics:
        """Compute the loss of a batch and leave its gradients; return at least `loss` and `tokens`."""
        ...
