"""Stage (a) and (b) in one run: dialogues, and pairs between them, so that neither skill is lost to the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mllm_embed_training.contrastive import ContrastiveStage
from mllm_embed_training.examples import ExampleTask
from mllm_embed_training.generative import GenerativeStage
from mllm_embed_training.plan import Draw
from mllm_embed_training.stage import Metrics, Stage


class JointStage:
    """Every step is a batch of one task, learned by the stage that the task belongs to.

    Args:
        generative: learns the dialogues.
        contrastive: learns the pairs, on the same model; no task name is in both.
    """

    def __init__(self, generative: GenerativeStage, contrastive: ContrastiveStage) -> None:
        self.model = generative.model
        self.tasks: Mapping[str, ExampleTask[Any]] = {**generative.tasks, **contrastive.tasks}
        self.sizes = {**generative.sizes, **contrastive.sizes}
        self.answers = contrastive.answers
        self._generative = generative
        self._contrastive = contrastive

    def prepare(self, draw: Draw) -> tuple[str, Any]:
        """Return an example's task, and the example as its stage makes it ready."""
        return draw.task, self._stage(draw.task).prepare(draw)

    def collate(self, prepared: Sequence[tuple[str, Any]]) -> tuple[str, Any]:
        """Return the batch's task, and the batch as its stage makes it."""
        task = prepared[0][0]
        return task, self._stage(task).collate([example for _, example in prepared])

    def backward(self, batch: tuple[str, Any]) -> Metrics:
        """Leave the gradients of the batch's own loss."""
        task, rows = batch
        return self._stage(task).backward(rows)

    def _stage(self, task: str) -> Stage:
        return self._generative if task in self._generative.sizes else self._contrastive
