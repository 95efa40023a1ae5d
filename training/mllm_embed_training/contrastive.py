"""Stage (b): make the LVLM an embedder, by contrast over homogeneous batches, with GradCache."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mllm_embed.model_dir import ModelDir
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import InputBuilder, ModelInputs
from mllm_embed.prompts import PromptRenderer
from mllm_embed.tasks import Role, Task
from mllm_embed.types import EmbedInput, RenderedPrompt
from mllm_embed_training import ranks
from mllm_embed_training.examples import Example, ExampleTask, Side, pictures
from mllm_embed_training.grad_cache import grad_cache_step
from mllm_embed_training.losses import duplicate_mask
from mllm_embed_training.objective import LossSection, Targets
from mllm_embed_training.plan import Draw
from mllm_embed_training.stage import Metrics


@dataclass(frozen=True, slots=True)
class ContrastiveBatch:
    """Queries and candidates in chunks; the first Q candidates are the positives in order, then explicit negatives.

    Attributes:
        queries: chunks of model inputs, Q rows in all.
        candidates: chunks of model inputs, C rows in all.
        query_keys: equal where contents are, int64 [Q].
        candidate_keys: likewise, int64 [C].
    """

    queries: list[ModelInputs]
    candidates: list[ModelInputs]
    query_keys: Tensor
    candidate_keys: Tensor


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
        self._tasks = tasks
        self._loss = loss
        self._chunk_size = chunk_size
        self._device = device
        self._bf16 = bf16
        self._renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
        self._inputs = InputBuilder(model_dir, self._renderer.image_token_id)

    def collate(self, draws: Sequence[Draw]) -> ContrastiveBatch:
        """Render queries, positives and negatives as the embedder will render them when it is served."""
        examples = []
        for draw in draws:
            task = self._tasks[draw.task]
            examples.append(task.draw(task.rows[draw.row], random.Random(str(draw.seed))))
        queries = [self._render(example.query, example.task, "query") for example in examples]
        sides = [(e.positive, e.task) for e in examples] + [(side, e.task) for e in examples for side in e.negatives]
        candidates = [self._render(side, task, "target") for side, task in sides]
        return ContrastiveBatch(
            self._chunks(queries),
            self._chunks(candidates),
            _hashes([example.query.key for example in examples]),
            _hashes([side.key for side, _ in sides]),
        )

    def backward(self, batch: ContrastiveBatch) -> Metrics:
        """Accumulate this rank's part of the gradients of the loss over the batches of all ranks."""
        accuracy = torch.zeros(())
        query_keys, candidate_keys = batch.query_keys.to(self._device), batch.candidate_keys.to(self._device)
        own = torch.arange(len(query_keys), device=self._device)
        labels = ranks.gather(ranks.first_row(candidate_keys) + own)
        excluded = duplicate_mask(ranks.gather(query_keys).tolist(), ranks.gather(candidate_keys).tolist(), labels)

        def loss_of(queries: Tensor, candidates: Tensor) -> Tensor:
            nonlocal accuracy
            queries, candidates = ranks.gather(queries), ranks.gather(candidates)
            accuracy = _accuracy(queries, candidates, labels, excluded)
            return self._loss.value(queries, candidates, Targets(labels, excluded))

        loss = grad_cache_step(self._encode, batch.queries, batch.candidates, loss_of)
        tokens = sum(int(chunk["attention_mask"].sum()) for chunk in [*batch.queries, *batch.candidates])
        return {"loss": float(loss), "accuracy": float(accuracy), "tokens": ranks.total(tokens)}

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


def _hashes(keys: Sequence[str]) -> Tensor:
    """Equal keys give equal numbers, on every rank."""
    digests = [hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])


def _accuracy(queries: Tensor, candidates: Tensor, labels: Tensor, excluded: Tensor) -> Tensor:
    """Share of queries whose positive scores highest, excluded candidates apart."""
    with torch.no_grad():
        similarity = nn.functional.normalize(queries, dim=-1) @ nn.functional.normalize(candidates, dim=-1).T
        best = similarity.masked_fill(excluded, -torch.inf).argmax(dim=1)
        return (best == labels).float().mean()
