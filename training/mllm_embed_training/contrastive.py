"""Stage (b): make the LVLM an embedder, by InfoNCE over homogeneous batches, with GradCache."""

from __future__ import annotations

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
from mllm_embed_training.config import LossSection
from mllm_embed_training.examples import Example, ExampleTask, Side, pictures
from mllm_embed_training.grad_cache import grad_cache_step
from mllm_embed_training.losses import duplicate_mask, info_nce, matryoshka
from mllm_embed_training.plan import Draw
from mllm_embed_training.stage import Metrics


@dataclass(frozen=True, slots=True)
class ContrastiveBatch:
    """Queries and candidates in chunks; the first Q candidates are the positives in order, then explicit negatives.

    Attributes:
        queries: chunks of model inputs, Q rows in all.
        candidates: chunks of model inputs, C rows in all.
        excluded: bool [Q, C], True where a candidate is no fair negative.
    """

    queries: list[ModelInputs]
    candidates: list[ModelInputs]
    excluded: Tensor


class ContrastiveStage:
    """InfoNCE over the library's prompts, media and pooling.

    Args:
        model_dir: tokenizer, processors and the prompt format to train for.
        model: the LVLM with its adapter, on `device`.
        tasks: the mixture's tasks.
        loss: temperature and widths.
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
        self._dimensions = (*loss.matryoshka_dimensions, model_dir.recipe.dimensions)
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
        excluded = duplicate_mask(
            [example.query.key for example in examples],
            [side.key for side, _ in sides],
            torch.arange(len(examples)),
        )
        candidates = [self._render(side, task, "target") for side, task in sides]
        return ContrastiveBatch(self._chunks(queries), self._chunks(candidates), excluded)

    def backward(self, batch: ContrastiveBatch) -> Metrics:
        """Accumulate the gradients of the batch's loss."""
        accuracy = torch.zeros(())
        excluded = batch.excluded.to(self._device)
        labels = torch.arange(len(excluded), device=self._device)

        def one_width(queries: Tensor, candidates: Tensor) -> Tensor:
            return info_nce(
                queries,
                candidates,
                labels,
                temperature=self._loss.temperature,
                mask=excluded,
                symmetric=self._loss.symmetric,
            )

        def loss_of(queries: Tensor, candidates: Tensor) -> Tensor:
            nonlocal accuracy
            accuracy = _accuracy(queries, candidates, excluded)
            return matryoshka(one_width, self._dimensions)(queries, candidates)

        loss = grad_cache_step(self._encode, batch.queries, batch.candidates, loss_of)
        tokens = sum(int(chunk["attention_mask"].sum()) for chunk in [*batch.queries, *batch.candidates])
        return {"loss": float(loss), "accuracy": float(accuracy), "tokens": float(tokens)}

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


def _accuracy(queries: Tensor, candidates: Tensor, excluded: Tensor) -> Tensor:
    """Share of queries whose positive scores highest, excluded candidates apart."""
    with torch.no_grad():
        similarity = nn.functional.normalize(queries, dim=-1) @ nn.functional.normalize(candidates, dim=-1).T
        best = similarity.masked_fill(excluded, -torch.inf).argmax(dim=1)
        return (best == torch.arange(len(best), device=best.device)).float().mean()
