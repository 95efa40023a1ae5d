"""Stage (a): make an LVLM, by next-token prediction on the answers of dialogues about pictures."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mllm_embed.families.base import USER_TURN
from mllm_embed.model_dir import ModelDir
from mllm_embed.modeling.inputs import InputBuilder, ModelInputs
from mllm_embed.modeling.loading import inner_model
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput, RenderedPrompt
from mllm_embed_training import ranks
from mllm_embed_training.examples import Dialogue, ExampleTask, opened
from mllm_embed_training.plan import Draw
from mllm_embed_training.stage import Metrics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LabelledInputs = tuple[ModelInputs, Tensor]
"""Model inputs, and labels [B, S]: the ids of the answer's tokens, -100 elsewhere."""


class GenerativeStage:
    """Cross-entropy of the answer's tokens given the picture and the question.

    Args:
        model_dir: tokenizer and processors.
        model: the whole LVLM, on `device`.
        tasks: the mixture's tasks.
        chunk_size: rows per forward pass.
        device: torch device.
        bf16: compute in bfloat16.
    """

    def __init__(
        self,
        model_dir: ModelDir,
        model: PreTrainedModel,
        tasks: Mapping[str, ExampleTask[Dialogue]],
        *,
        chunk_size: int,
        device: torch.device,
        bf16: bool,
    ) -> None:
        self.model: nn.Module = model
        self.sizes = {name: len(task.rows) for name, task in tasks.items()}
        self.answers: dict[str, Callable[[], NDArray[np.int64]]] = {}  # negatives are what answers could spoil
        self.tasks = tasks
        self._vocabulary = model.get_output_embeddings()
        self._chunk_size = chunk_size
        self._device = device
        self._bf16 = bf16
        self._renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, USER_TURN)
        self._timed = model_dir.recipe.times_frames
        self._inputs = InputBuilder(model_dir, self._renderer.image_token_id)
        self._end_of_turn = self._renderer.control_id("<|im_end|>")

    def prepare(self, draw: Draw) -> tuple[RenderedPrompt, int]:
        """Return a dialogue's prompt with its answer, and the answer's length in tokens."""
        task = self.tasks[draw.task]
        dialogue = task.draw(task.rows[draw.row], random.Random(str(draw.seed)))
        item, pictures = opened(EmbedInput(dialogue.content), timed=self._timed)
        question = self._renderer.render(item, "", pictures)
        answer = (*self._renderer.tokenize(dialogue.answer), self._end_of_turn)
        return RenderedPrompt(question.token_ids + answer, question.images), len(answer)

    def collate(self, prepared: Sequence[tuple[RenderedPrompt, int]]) -> list[LabelledInputs]:
        """Return chunks of rows of like length, so that little is padded."""
        prompts = sorted(prepared, key=lambda pair: len(pair[0].token_ids))
        size = self._chunk_size
        return [self._label(prompts[start : start + size]) for start in range(0, len(prompts), size)]

    def backward(self, batch: list[LabelledInputs]) -> Metrics:
        """Accumulate this rank's part of the gradients of the mean cross-entropy per answer token, over all ranks."""
        answers = ranks.total(sum(int((labels[:, 1:] != -100).sum()) for _, labels in batch))
        totals = {"loss": 0.0, "accuracy": 0.0, "tokens": 0.0}
        for chunk in batch:
            for name, value in self._chunk_backward(chunk, answers).items():
                totals[name] += value
        return {name: ranks.total(value) for name, value in totals.items()}

    def _label(self, prompts: Sequence[tuple[RenderedPrompt, int]]) -> LabelledInputs:
        inputs = self._inputs.build([prompt for prompt, _ in prompts], padding_side="left")
        labels = torch.full_like(inputs["input_ids"], -100)
        for row, (_, length) in enumerate(prompts):  # left padding: the answer ends at the last column
            labels[row, -length:] = inputs["input_ids"][row, -length:]
        return inputs, labels

    def _chunk_backward(self, chunk: LabelledInputs, answers: float) -> Metrics:
        inputs = {name: tensor.to(self._device) for name, tensor in chunk[0].items()}
        labels = chunk[1].to(self._device)[:, 1:]
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            hidden = inner_model(self.model)(**inputs, use_cache=False).last_hidden_state[:, :-1]
            is_answer = labels != -100
            # Only answer positions go through the vocabulary matrix, which costs more than a layer.
            logits = self._vocabulary(hidden[is_answer])  # [T, V]
        loss = F.cross_entropy(logits.float(), labels[is_answer], reduction="sum") / answers
        torch.autograd.backward(loss)
        correct = (logits.argmax(dim=-1) == labels[is_answer]).sum() / answers
        return {
            "loss": float(loss.detach()),
            "accuracy": float(correct),
            "tokens": float(inputs["attention_mask"].sum()),
        }
