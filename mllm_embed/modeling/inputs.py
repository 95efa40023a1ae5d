"""RenderedPrompts -> the tensors a Hugging Face LVLM reads. Training and the transformers backend share this file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mllm_embed.modeling import torch_compat
from mllm_embed.types import RenderedPrompt

if TYPE_CHECKING:
    from mllm_embed.model_dir import ModelDir

ModelInputs = dict[str, Tensor]
"""`input_ids`, `attention_mask`, `mm_token_type_ids` [B, S]; with pictures also `pixel_values` [patches, P] and
`image_grid_thw` [images, 3]."""


class InputBuilder:
    """Builds padded batches for one model.

    Args:
        model_dir: the opened model directory.
        image_token_id: placeholder id that stands for one picture in `RenderedPrompt.token_ids`.
    """

    def __init__(self, model_dir: ModelDir, image_token_id: int) -> None:
        torch_compat.apply()
        from transformers import AutoImageProcessor

        rule = model_dir.pixels
        self._processor: Any = AutoImageProcessor.from_pretrained(
            str(model_dir.weights), size={"shortest_edge": rule.min_pixels, "longest_edge": rule.max_pixels}
        )
        self._image_token_id = image_token_id

    def build(self, prompts: Sequence[RenderedPrompt], *, padding_side: str = "right") -> ModelInputs:
        """Expand placeholders to visual tokens, preprocess the pictures, pad.

        Args:
            prompts: at least one prompt.
            padding_side: `right` or `left`; pooling is correct for both.

        Returns:
            the model's keyword arguments, on the CPU.
        """
        images = [image for prompt in prompts for image in prompt.images]
        inputs: ModelInputs = {}
        counts: list[int] = []
        if images:
            features = self._processor(images=images, return_tensors="pt")
            merge = self._processor.merge_size**2
            counts = [int(count) for count in features["image_grid_thw"].prod(dim=1) // merge]
            inputs["pixel_values"] = features["pixel_values"]
            inputs["image_grid_thw"] = features["image_grid_thw"]
        remaining = iter(counts)
        rows = [self._expand(prompt.token_ids, remaining) for prompt in prompts]
        return {**_pad(rows, self._image_token_id, padding_side), **inputs}

    def _expand(self, token_ids: Sequence[int], counts: Any) -> list[int]:
        row: list[int] = []
        for token_id in token_ids:
            row += [token_id] * (next(counts) if token_id == self._image_token_id else 1)
        return row


def _pad(rows: Sequence[Sequence[int]], image_token_id: int, padding_side: str) -> ModelInputs:
    width = max(map(len, rows))
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        where = slice(0, len(row)) if padding_side == "right" else slice(width - len(row), width)
        input_ids[index, where] = torch.tensor(row)
        mask[index, where] = 1
    is_image = (input_ids == image_token_id) & (mask == 1)
    return {"input_ids": input_ids, "attention_mask": mask, "mm_token_type_ids": is_image.int()}
