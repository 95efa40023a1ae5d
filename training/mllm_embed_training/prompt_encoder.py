"""The model in training as an encoder: prompts, pictures and pooling are the library's, so serving gives the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mllm_embed.model_dir import ModelDir
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import InputBuilder, ModelInputs
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput, RenderedPrompt
from mllm_embed_training.examples import opened
from mllm_embed_training.frozen_tower import Chunk, can_look_ahead, looked_at, moved


class PromptEncoder:
    """Renders inputs, builds them into chunks, and encodes a chunk.

    Args:
        model_dir: tokenizer, processors and the prompt format to train for.
        model: the LVLM, with its adapter if it has one, on `device`.
        chunk_size: rows per forward pass.
        device: torch device.
        bf16: compute in bfloat16.
    """

    def __init__(
        self, model_dir: ModelDir, model: nn.Module, *, chunk_size: int, device: torch.device, bf16: bool
    ) -> None:
        self.model = model
        self.device = device
        self._family = model_dir.family
        self._chunk_size = chunk_size
        self._bf16 = bf16
        self._renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
        self._timed = model_dir.recipe.times_frames
        self._inputs = InputBuilder(model_dir, self._renderer.image_token_id)

    def render(self, item: EmbedInput, instruction: str) -> RenderedPrompt:
        """Return the prompt of an input, its media loaded, as the embedder will render it when it is served."""
        item, pictures = opened(item, timed=self._timed)
        return self._renderer.render(item, instruction, pictures)

    def length(self, prompt: RenderedPrompt) -> int:
        """Return how many tokens the model reads for a prompt."""
        return self._inputs.length(prompt)

    def chunks(self, prompts: Sequence[RenderedPrompt]) -> list[ModelInputs]:
        """Build model inputs of at most `chunk_size` prompts each, in order, on the CPU."""
        size = self._chunk_size
        return [self._inputs.build(prompts[start : start + size]) for start in range(0, len(prompts), size)]

    def looked_at(self, chunks: Sequence[ModelInputs]) -> Sequence[Chunk]:
        """Let a frozen tower look at the pictures of chunks that will be encoded twice (`frozen_tower`)."""
        if not can_look_ahead(self.model, self._family):
            return chunks
        with self.autocast():
            return [looked_at(self.model, self._family, chunk, self.device) for chunk in chunks]

    def encode(self, chunk: Chunk) -> Tensor:
        """Return the pooled vectors of a chunk, float32 [N, D], with a graph where gradients are enabled."""
        with self.autocast():
            return encode(self.model, moved(chunk, self.device)).float()

    def autocast(self) -> torch.autocast:
        """Return the context in which the model computes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)
