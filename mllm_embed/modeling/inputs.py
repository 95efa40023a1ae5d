"""RenderedPrompts -> the tensors a Hugging Face LVLM reads. Training and the transformers backend share this file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.modeling import torch_compat
from mllm_embed.modeling.cross_attention import stand_beside
from mllm_embed.modeling.soft_tokens import set_apart
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import RenderedPrompt

if TYPE_CHECKING:
    from mllm_embed.model_dir import ModelDir

ModelInputs = dict[str, Tensor]
"""`input_ids`, `attention_mask` [B, S]; where the family has one, the mark of visual tokens [B, S]; with pictures also
the family's `pixel_inputs`, for Qwen `pixel_values` [patches, P] and `image_grid_thw` [images, 3], and where pictures
stand beside the sequence `cross_attention_mask` [B, S, images, tiles]. With 1-D positions also `position_ids`
[3, B, S]; with mean pooling also `MEAN_MASK` [B, S], which `encode` takes out."""

MEAN_MASK = "mean_mask"
"""Present where the recipe pools the mean; what does not pool (generation) then fails, since no model takes it."""


class InputBuilder:
    """Builds padded batches for one model.

    Args:
        model_dir: the opened model directory.
        image_token_id: placeholder id that stands for one picture in `RenderedPrompt.token_ids`.

    Raises:
        IncompatibleCheckpoint: the placeholder is not this model's.
    """

    def __init__(self, model_dir: ModelDir, image_token_id: int) -> None:
        torch_compat.apply()
        from transformers import AutoImageProcessor

        self._family = model_dir.family
        self._recipe = model_dir.recipe
        self._pictures = model_dir.pixels
        self._renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
        if image_token_id != self._renderer.image_token_id:
            raise IncompatibleCheckpoint(
                f"{model_dir.path}: its placeholder for a picture is the token {self._renderer.image_token_id}, "
                f"but the prompts hold {image_token_id}"
            )
        self._processor: Any = AutoImageProcessor.from_pretrained(
            str(model_dir.weights), trust_remote_code=False, **self._pictures.options()
        )

    def build(self, prompts: Sequence[RenderedPrompt], *, padding_side: str = "right") -> ModelInputs:
        """Expand placeholders to visual tokens, preprocess the pictures, pad.

        Args:
            prompts: at least one prompt.
            padding_side: `right` or `left`; pooling is correct for both.

        Returns:
            the model's keyword arguments, on the CPU.
        """
        rows = [self._renderer.expand(prompt, self._pictures) for prompt in prompts]
        inputs = set_apart(_pad(rows, padding_side), prompts)
        if self._family.type_ids is not None:
            is_visual = (inputs["input_ids"] == self._renderer.visual_token_id) & (inputs["attention_mask"] == 1)
            inputs[self._family.type_ids] = is_visual.int()
        if self._recipe.position_mode == "1d" and self._family.position_modes[0] != "1d":
            inputs["position_ids"] = text_positions(inputs["attention_mask"])
        if self._recipe.pooling == "mean":
            inputs[MEAN_MASK] = inputs["attention_mask"]
        return {**inputs, **self._pixel_inputs(prompts, inputs)}

    def cost(self, prompt: RenderedPrompt) -> int:
        """Return how many tokens a prompt takes in a batch: those that the model reads, and those that it looks at."""
        return self.length(prompt) + len(prompt.images) * self._pictures.beside

    def length(self, prompt: RenderedPrompt) -> int:
        """Return how many tokens the model reads for a prompt, visual tokens included."""
        return len(self._renderer.expand(prompt, self._pictures))

    def _pixel_inputs(self, prompts: Sequence[RenderedPrompt], inputs: ModelInputs) -> ModelInputs:
        """Preprocess the pictures of a batch, if it has any; `inputs` are its tokens."""
        by_prompt = [list(prompt.images) for prompt in prompts if prompt.images]
        if not by_prompt:
            return {}
        images: list[Any] = by_prompt if self._family.images_by_prompt else list(chain(*by_prompt))
        features = self._processor(images=images, return_tensors="pt")
        pixels = {name: features[name] for name in self._family.pixel_inputs}
        if not self._family.cross_attention:
            return pixels
        rows = [row for row, prompt in enumerate(prompts) if prompt.images]
        return stand_beside(pixels, rows, inputs["input_ids"], self._renderer.visual_token_id)


def text_positions(attention_mask: Tensor) -> Tensor:
    """Number real tokens one after the other, pictures too: VLM2Vec's positions on Qwen2-VL.

    Args:
        attention_mask: 1 for real tokens, 0 for padding, shape [B, S].

    Returns:
        the same positions for time, height and width, shape [3, B, S].
    """
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0).expand(3, -1, -1)


def _pad(rows: Sequence[Sequence[int]], padding_side: str) -> ModelInputs:
    width = max(map(len, rows))
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        where = slice(0, len(row)) if padding_side == "right" else slice(width - len(row), width)
        input_ids[index, where] = torch.tensor(row)
        mask[index, where] = 1
    return {"input_ids": input_ids, "attention_mask": mask}
