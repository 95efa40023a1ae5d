"""Dialogues, pairs and a teacher's similarities in one run, step by step, so that no skill is lost to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mllm_embed_training.examples import ExampleTask
from mllm_embed_training.plan import Draw
from mllm_embed_training.stage import Metrics, Stage


class JointStage:
    """Every step is a batch of one task, learned by the stage that the task belongs to.

    Args:
        stages: learn the same model; no task name is in two of them.
    """

    def __init__(self, *stages: Stage) -> None:
        self.model: nn.Module = stages[0].model
        self.tasks: Mapping[str, ExampleTask[Any]] = {
            name: task for stage in stages for name, task in stage.tasks.items()
        }
        self.sizes = {name: size for stage in stages for name, size in stage.sizes.items()}
        self.answers = {name: read for stage in stages for name, read in stage.answers.items()}
        self._stages = {name: stage for stage in stages for name in stage.sizes}

    def prepare(self, draw: Draw) -> tuple[str, Any]:
        """Return an example's task, and the example as its stage makes it ready."""
        return draw.task, self._stages[draw.task].prepare(draw)

    def collate(self, prepared: Sequence[tuple[str, Any]]) -> tuple[str, Any]:
        """Return the batch's task, and the batch as its stage makes it."""
        task = prepared[0][0]
        return task, self._stages[task].collate([example for _, example in prepared])

    def backward(self, batch: tuple[str, Any]) -> Metrics:
        """Leave the gradients of the batch's own loss."""
        task, rows = batch
        return self._stages[task].backward(rows)
