"""Stage (0) of MoCa: hidden words are told, hidden patches painted again, by a model that sees both ways.

Joint reconstruction of interleaved text and pictures (arXiv:2506.23115): the query and the positive of a pair, one
after the other, are the sequence. Where the paper copies a layer of the language model as its decoder, a fresh one
stands here (`patch_decoder.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mllm_embed.model_dir import ModelDir
from mllm_embed.modeling.inputs import MEAN_MASK, ModelInputs
from mllm_embed.modeling.loading import inner_model
from mllm_embed.types import EmbedInput, RenderedPrompt
from mllm_embed_training import ranks
from mllm_embed_training.config import ConfigError, ReconstructSection
from mllm_embed_training.examples import Example, ExampleTask
from mllm_embed_training.patch_decoder import PatchDecoder, WithPatchDecoder
from mllm_embed_training.plan import Draw
from mllm_embed_training.prompt_encoder import PromptEncoder
from mllm_embed_training.stage import Metrics

PIXELS = "pixel_values"
"""The model's input of patches, one a row."""
PATCH_INPUTS = (PIXELS, "image_grid_thw")
"""The pictures of families that have it."""


@dataclass(frozen=True, slots=True)
class HiddenChunk:
    """A chunk with holes, and what was in them.

    Attributes:
        inputs: the model's, some tokens and patches hidden.
        words: ids of the hidden tokens, -100 elsewhere, shape [B, S].
        visual: bool, where visual tokens stand, shape [B, S].
        patches: all patches as they were, shape [N, P]; N is 0 without pictures.
        hidden: bool, which of them are hidden, shape [N].
    """

    inputs: ModelInputs
    words: Tensor
    visual: Tensor
    patches: Tensor
    hidden: Tensor


class ReconstructStage:
    """Cross-entropy of hidden tokens, plus weighted squared error of hidden patches.

    Args:
        encoder: the model in training; its pictures come as rows of patches.
        start: tokenizer and configuration.
        tasks: the mixture's tasks.
        section: what is hidden.

    Raises:
        ConfigError: a family whose pictures come otherwise.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        start: ModelDir,
        tasks: Mapping[str, ExampleTask[Example]],
        section: ReconstructSection,
    ) -> None:
        if start.family.pixel_inputs != PATCH_INPUTS:
            raise ConfigError(
                f"the reconstruct stage needs pictures as rows of patches, which {start.family.name} lacks"
            )
        lvlm: Any = encoder.model
        self.tasks = tasks
        self.sizes = {name: len(task.rows) for name, task in tasks.items()}
        self.answers: dict[str, Callable[[], NDArray[np.int64]]] = {}  # nothing is contrasted
        self._vocabulary = lvlm.get_output_embeddings()
        self._encoder = encoder
        self._section = section
        self._visual_id, self._mask_id, self._control = _tokens(start, section.mask_token)
        merge, values = _patch_shape(lvlm.config)
        decoder = PatchDecoder(start.recipe.dimensions, merge, values).to(encoder.device)
        self.model: nn.Module = WithPatchDecoder(lvlm, decoder)
        self._decoder = decoder

    def prepare(self, draw: Draw) -> tuple[RenderedPrompt, tuple[int, int, int]]:
        """Return a pair's prompt, query before positive, and the seed of its holes."""
        task = self.tasks[draw.task]
        example = task.draw(task.rows[draw.row], Random(str(draw.seed)))
        item = EmbedInput((*example.query.content, *example.positive.content))
        return self._encoder.render(item, example.task.query), draw.seed

    def collate(self, prepared: Sequence[tuple[RenderedPrompt, tuple[int, int, int]]]) -> list[HiddenChunk]:
        """Return chunks of rows of like length, with holes that follow from the seed of their first row."""
        rows = sorted(prepared, key=lambda row: (len(row[0].token_ids), row[1]))
        chunks = self._encoder.chunks([prompt for prompt, _ in rows])
        firsts = np.cumsum([0, *(len(chunk["input_ids"]) for chunk in chunks)])
        return [self._hide(chunk, rows[first][1]) for chunk, first in zip(chunks, firsts[:-1], strict=True)]

    def backward(self, batch: list[HiddenChunk]) -> Metrics:
        """Accumulate this rank's part of the gradients of the means over the holes of all ranks."""
        words = max(1.0, ranks.total(sum(int((chunk.words != -100).sum()) for chunk in batch)))
        patches = max(1.0, ranks.total(sum(int(chunk.hidden.sum()) for chunk in batch)))
        totals = {"loss": 0.0, "word_loss": 0.0, "patch_loss": 0.0, "accuracy": 0.0, "tokens": 0.0}
        for chunk in batch:
            for name, value in self._chunk_backward(chunk, words, patches).items():
                totals[name] += value
        return {name: ranks.total(value) for name, value in totals.items()}

    def _hide(self, inputs: ModelInputs, seed: tuple[int, int, int]) -> HiddenChunk:
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        ids = inputs["input_ids"]
        free = (inputs["attention_mask"] == 1) & ~torch.isin(ids, self._control)
        holes = free & (torch.rand(ids.shape, generator=generator) < self._section.tokens)
        shown = {name: tensor for name, tensor in inputs.items() if name != MEAN_MASK}
        shown["input_ids"] = ids.masked_fill(holes, self._mask_id)
        patches = inputs.get(PIXELS, torch.zeros(0, 1))
        hidden = torch.rand(len(patches), generator=generator) < self._section.patches
        if len(patches):
            noise = torch.randn(patches.shape, generator=generator)
            shown[PIXELS] = torch.where(hidden[:, None], noise, patches)
        return HiddenChunk(shown, ids.masked_fill(~holes, -100), ids == self._visual_id, patches, hidden)

    def _chunk_backward(self, chunk: HiddenChunk, words: float, patches: float) -> Metrics:
        device = self._encoder.device
        inputs = {name: tensor.to(device) for name, tensor in chunk.inputs.items()}
        wanted, visual = chunk.words.to(device), chunk.visual.to(device)
        is_hole = wanted != -100
        with self._encoder.autocast():
            hidden = inner_model(self.model)(**inputs, use_cache=False).last_hidden_state
            logits = self._vocabulary(hidden[is_hole])  # [T, V]
            painted = self._decoder(hidden, inputs["attention_mask"], visual) if len(chunk.patches) else None
        word_loss = F.cross_entropy(logits.float(), wanted[is_hole], reduction="sum") / words
        patch_loss = hidden.new_zeros((), dtype=torch.float32)
        if painted is not None:
            gone = chunk.hidden.to(device)
            missed = painted.float()[gone] - chunk.patches.to(device)[gone]
            patch_loss = missed.square().mean(dim=1).sum() / patches
        loss = word_loss + self._section.patch_weight * patch_loss
        torch.autograd.backward(loss)
        return {
            "loss": float(loss.detach()),
            "word_loss": float(word_loss.detach()),
            "patch_loss": float(patch_loss.detach()),
            "accuracy": float((logits.argmax(dim=-1) == wanted[is_hole]).sum() / words),
            "tokens": float(inputs["attention_mask"].sum()),
        }


def _tokens(start: ModelDir, mask_token: str) -> tuple[int, int, Tensor]:
    """Return the visual token's id, the mask's, and those of all control tokens."""
    from tokenizers import Tokenizer

    from mllm_embed.prompts import PromptRenderer

    renderer = PromptRenderer(start.tokenizer_file, start.family, start.template)
    added = Tokenizer.from_file(str(start.tokenizer_file)).get_added_tokens_decoder()
    control = torch.tensor(sorted(number for number, token in added.items() if token.special))
    return renderer.visual_token_id, renderer.control_id(mask_token), control


def _patch_shape(config: Any) -> tuple[int, int]:
    """Return how many patches a visual token stands for, and how many numbers a patch has (Qwen's pictures)."""
    vision = config.vision_config
    channels = getattr(vision, "in_channels", None) or vision.in_chans
    return vision.spatial_merge_size**2, channels * vision.temporal_patch_size * vision.patch_size**2
