"""InternVL: up to four square tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.tiny_models import PATCH, QWEN_TOKENS, SIDE, TEXT, VISION, write

NAMED_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def make_tiny(path: Path) -> None:
    tokens = (*QWEN_TOKENS, *NAMED_TOKENS.values())
    write(path, "internvl", tokens, _config, _processor, named_tokens=NAMED_TOKENS)


def _config(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    vision = {**VISION, "model_type": "internvl_vision", "image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]}
    return {
        "text_config": {**TEXT, "model_type": "qwen2", "vocab_size": vocabulary},
        "vision_config": vision,
        "image_token_id": ids["<IMG_CONTEXT>"],
        "image_seq_length": (SIDE // PATCH // 2) ** 2,
    }


def _processor(tokenizer: Any) -> Any:
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    size = {"height": SIDE, "width": SIDE}
    images = GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=4)
    tokens = (SIDE // PATCH // 2) ** 2
    return InternVLProcessor(images, tokenizer, InternVLVideoProcessor(size=size), image_seq_length=tokens)


def test_a_ratio_that_is_no_number_is_refused(refused_with: Callable[..., None]) -> None:
    refused_with("internvl", {"downsample_ratio": "x"}, "cannot be honoured")
