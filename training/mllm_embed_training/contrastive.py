"""Stage (b): make the LVLM an embedder, by contrast over homogeneous batches, with GradCache."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mllm_embed.model_dir import ModelDir
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import InputBuilder, ModelInputs
from mllm_embed.prompts import PromptRenderer
from mllm_embed.tasks import Role, Task
from mllm_embed.types import EmbedInput, RenderedPrompt
from mllm_embed_training import ranks
from mllm_embed_training.errors import CorruptRow
from mllm_embed_training.examples import Example, ExampleTask, Side, pictures
from mllm_embed_training.grad_cache import grad_cache_step
from mllm_embed_training.losses import duplicate_mask
from mllm_embed_training.objective import LossSection, Targets
from mllm_embed_training.plan import Draw
from mllm_embed_training.stage import Metrics


@dataclass(frozen=True, slots=True)
class PreparedExample:
    """An example rendered: its query, and its candidates, the positive first, then further ones, then negatives."""

    query: RenderedPrompt
    candidates: list[RenderedPrompt]
    query_key: str
    candidate_keys: list[str]
    grades: list[float]
    """Of the positives, in order."""


@dataclass(frozen=True, slots=True)
class ContrastiveBatch:
    """Queries and candidates in chunks; the first Q candidates are the positives in order, then whatever else there is.

    Attributes:
        queries: chunks of model inputs, Q rows in all.
        candidates: chunks of model inputs, C rows in all.
        query_keys: equal where contents are, int64 [Q].
        candidate_keys: likewise, int64 [C].
        right: every right answer, int64 [P, 2] of query and candidate.
        grades: how right it is, float32 [P].
    """

    queries: list[ModelInputs]
    candidates: list[ModelInputs]
    query_keys: Tensor
    candidate_keys: Tensor
    right: Tensor
    grades: Tensor


class ContrastiveStage:
    """Contrastive losses over the library's prompts, media and pooling.

    Args:
        model_dir: tokenizer, processors and the prompt format to train for.
        model: the LVLM with its adapter, on `device`.
        tasks: the mixture's tasks.
        loss: the objective.
        chunk_size: rows per forward pass (GradCache); a batch of one chunk takes the plain step.
        device: torch device.
        bf16: compute in bfloat16.
    """

    def __init__(
        self,
        model_dir: ModelDir,
        model: nn.Module,
        tasks: Mapping[str, ExampleTask[Example]],
        *,
        loss: LossSection,
        chunk_size: int,
        device: torch.device,
        bf16: bool,
    ) -> None:
        self.model = model
        self.sizes = {name: len(task.rows) for name, task in tasks.items()}
        self.answers = {name: partial(_answers, task) for name, task in tasks.items() if task.answer is not None}
        self._tasks = tasks
        self._loss = loss
        self._chunk_size = chunk_size
        self._device = device
        self._bf16 = bf16
        self._renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
        self._inputs = InputBuilder(model_dir, self._renderer.image_token_id)

    def prepare(self, draw: Draw) -> PreparedExample:
        """Render query, positives and negatives as the embedder will render them when it is served."""
        task = self._tasks[draw.task]
        example = task.draw(task.rows[draw.row], random.Random(str(draw.seed)))
        sides = [example.positive, *example.also, *example.negatives]
        return PreparedExample(
            self._render(example.query, example.task, "query"),
            [self._render(side, example.task, "target") for side in sides],
            example.query.key,
            [side.key for side in sides],
            list(example.grades or [1.0] * (1 + len(example.also))),
        )

    def collate(self, prepared: Sequence[PreparedExample]) -> ContrastiveBatch:
        """Put the positives before all other candidates, and note which of those are right answers too."""
        firsts = [(row, 0) for row in range(len(prepared))]
        others = [(row, place) for row, one in enumerate(prepared) for place in range(1, len(one.candidates))]
        places = firsts + others
        right = [
            (row, column, prepared[row].grades[place])
            for column, (row, place) in enumerate(places)
            if place < len(prepared[row].grades)
        ]
        return ContrastiveBatch(
            self._chunks([example.query for example in prepared]),
            self._chunks([prepared[row].candidates[place] for row, place in places]),
            _hashes([example.query_key for example in prepared]),
            _hashes([prepared[row].candidate_keys[place] for row, place in places]),
            torch.tensor([(row, column) for row, column, _ in right]),
            torch.tensor([grade for _, _, grade in right]),
        )

    def backward(self, batch: ContrastiveBatch) -> Metrics:
        """Accumulate this rank's part of the gradients of the loss over the batches of all ranks."""
        accuracy = torch.zeros(())
        targets = self._targets(batch)

        def loss_of(queries: Tensor, candidates: Tensor) -> Tensor:
            nonlocal accuracy
            queries, candidates = ranks.gather(queries), ranks.gather(candidates)
            accuracy = _accuracy(queries, candidates, targets)
            return self._loss.value(queries, candidates, targets)

        loss = grad_cache_step(self._encode, batch.queries, batch.candidates, loss_of)
        tokens = sum(int(chunk["attention_mask"].sum()) for chunk in [*batch.queries, *batch.candidates])
        return {"loss": float(loss), "accuracy": float(accuracy), "tokens": ranks.total(tokens)}

    def _targets(self, batch: ContrastiveBatch) -> Targets:
        """Return what is right in the batches of all ranks."""
        query_keys, candidate_keys = (keys.to(self._device) for keys in (batch.query_keys, batch.candidate_keys))
        offset = torch.tensor([ranks.first_row(query_keys), ranks.first_row(candidate_keys)], device=self._device)
        right = ranks.gather(batch.right.to(self._device) + offset)
        labels = ranks.gather(offset[1] + torch.arange(len(query_keys), device=self._device))
        query_keys, candidate_keys = ranks.gather(query_keys), ranks.gather(candidate_keys)
        grades = torch.zeros(len(query_keys), len(candidate_keys), device=self._device)
        grades[right[:, 0], right[:, 1]] = ranks.gather(batch.grades.to(self._device))
        excluded = duplicate_mask(query_keys.tolist(), candidate_keys.tolist(), labels, right)
        return Targets(labels, excluded, grades)

    def _render(self, side: Side, task: Task, role: Role) -> RenderedPrompt:
        item = EmbedInput(side.content)
        return self._renderer.render(item, task.instruction(role), pictures(item))

    def _chunks(self, prompts: Sequence[RenderedPrompt]) -> list[ModelInputs]:
        size = self._chunk_size
        return [self._inputs.build(prompts[start : start + size]) for start in range(0, len(prompts), size)]

    def _encode(self, chunk: ModelInputs) -> Tensor:
        inputs = {name: tensor.to(self._device) for name, tensor in chunk.items()}
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            return encode(self.model, inputs).float()


def _answers(task: ExampleTask[Example]) -> NDArray[np.int64]:
    """Number the rows' answers, equal where those are; a corrupt row's answer is like no other."""
    names: list[str] = []
    for index in range(len(task.rows)):
        try:
            names.append(str(task.answer and task.answer(task.rows[index])))
        except CorruptRow:
            names.append(f"corrupt row {index}")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _hashes(keys: Sequence[str]) -> Tensor:
    """Equal keys give equal numbers, on every rank."""
    digests = [hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])


def _accuracy(queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
    """Share of queries whose positive scores highest, excluded candidates apart."""
    with torch.no_grad():
        similarity = nn.functional.normalize(queries, dim=-1) @ nn.functional.normalize(candidates, dim=-1).T
        best = similarity.masked_fill(targets.excluded, -torch.inf).argmax(dim=1)
        return (best == targets.labels).float().mean()
