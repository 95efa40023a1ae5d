"""Stage (0): teach the model how texts relate, or pictures, by the similarities that another embedder finds among them.

UniME's textual discriminative distillation (arXiv:2504.17432, section 3.1), whose code was never released: texts only,
the language model only, and a loss that compares similarities and not vectors, so that the teacher may have any width.
Pictures are learned by the same loss, where a joint stage has a teacher of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mllm_embed.modeling.inputs import ModelInputs
from mllm_embed.types import EmbedInput, RenderedPrompt
from mllm_embed_training import ranks
from mllm_embed_training.examples import Example, ExampleTask
from mllm_embed_training.grad_cache import grad_cache_step
from mllm_embed_training.losses import similarity_distillation
from mllm_embed_training.plan import Draw
from mllm_embed_training.prompt_encoder import PromptEncoder
from mllm_embed_training.stage import Metrics
from mllm_embed_training.teacher import TeacherVectors


@dataclass(frozen=True, slots=True)
class DistillBatch:
    """Texts, or pictures, in two halves of chunks, N rows in all, and the teacher's vectors, float32 [N, T]."""

    halves: tuple[list[ModelInputs], list[ModelInputs]]
    teacher: Tensor


class DistillStage:
    """KL between the teacher's and the student's similarity distributions over the texts, or pictures, of a batch.

    Every example gives one of them: the query if it is one, else the positive.

    Args:
        encoder: the model in training.
        tasks: the mixture's tasks.
        teacher: vectors by text, or by picture.
        temperature: of the student's similarities.
        teacher_temperature: of the teacher's; None takes the student's.
        exclude_self: leaves each of them out of its own distribution.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        tasks: Mapping[str, ExampleTask[Example]],
        *,
        teacher: TeacherVectors,
        temperature: float,
        teacher_temperature: float | None,
        exclude_self: bool,
    ) -> None:
        self.model = encoder.model
        self.sizes = {name: len(task.rows) for name, task in tasks.items()}
        self.answers: dict[str, Callable[[], NDArray[np.int64]]] = {}
        self._encoder = encoder
        self.tasks = tasks
        self._teacher = teacher
        self._loss = partial(
            similarity_distillation,
            temperature=temperature,
            teacher_temperature=teacher_temperature,
            exclude_self=exclude_self,
        )

    def prepare(self, draw: Draw) -> tuple[RenderedPrompt, NDArray[np.float32]]:
        """Render a text, or a picture, and look up the teacher's vector of it."""
        task = self.tasks[draw.task]
        example = task.draw(task.rows[draw.row], random.Random(str(draw.seed)))
        role, side, vector = self._teacher.side(example)
        return self._encoder.render(EmbedInput(side.content), example.task.instruction(role)), vector

    def collate(self, prepared: Sequence[tuple[RenderedPrompt, NDArray[np.float32]]]) -> DistillBatch:
        """Sort by length, so that little is padded, and cut in two: GradCache wants two sides."""
        rows = sorted(prepared, key=lambda row: self._encoder.length(row[0]))
        middle = (len(rows) + 1) // 2
        first, second = ([prompt for prompt, _ in half] for half in (rows[:middle], rows[middle:]))
        return DistillBatch(
            (self._encoder.chunks(first), self._encoder.chunks(second)),
            torch.from_numpy(np.stack([vector for _, vector in rows])),
        )

    def backward(self, batch: DistillBatch) -> Metrics:
        """Accumulate this rank's part of the gradients over the texts of all ranks."""
        teacher = ranks.gather(batch.teacher.to(self._encoder.device))

        def loss_of(first: Tensor, second: Tensor) -> Tensor:
            return self._loss(ranks.gather(torch.cat([first, second])), teacher)

        first, second = (self._encoder.looked_at(half) for half in batch.halves)
        loss = grad_cache_step(self._encoder.encode, first, second, loss_of)
        tokens = sum(int(chunk["attention_mask"].sum()) for half in batch.halves for chunk in half)
        return {"loss": float(loss), "tokens": ranks.total(tokens)}
