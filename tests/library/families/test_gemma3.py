"""Gemma 3: its pictures stand between two marks and two empty lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.library.families import test_llava
from tests.tiny_models import HEAD_DIM, PATCH, SIDE, TEXT, VISION, write

NAMED_TOKENS = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
UNCOUNTED = 2
"""Its processor leaves the two marks around a picture out of its count."""

TRANSFORMERS_4 = test_llava.TRANSFORMERS_4


def make_tiny(path: Path) -> None:
    tokens = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *NAMED_TOKENS.values())
    write(path, "gemma3", tokens, _config, _processor, opening="<bos>", named_tokens=NAMED_TOKENS)


def _config(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    text = {**TEXT, "vocab_size": vocabulary, "head_dim": HEAD_DIM, "sliding_window": 16}
    return {
        "text_config": {**text, "layer_types": ["sliding_attention", "full_attention"], "pad_token_id": ids["<pad>"]},
        "vision_config": {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        "mm_tokens_per_image": (SIDE // PATCH // 2) ** 2,
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
        "image_token_index": ids["<image_soft_token>"],
    }


def _processor(tokenizer: Any) -> Any:
    from transformers import Gemma3ImageProcessor, Gemma3Processor

    images = Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE})
    return Gemma3Processor(images, tokenizer, image_seq_length=(SIDE // PATCH // 2) ** 2)
