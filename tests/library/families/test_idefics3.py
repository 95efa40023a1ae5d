"""Idefics 3: two rows and columns of tiles at most, each named by its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tiny_models import HEAD_DIM, PATCH, SIDE, TEXT, VISION, write

PLACES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
TOKENS = ("<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>", *PLACES)


def make_tiny(path: Path) -> None:
    opening = "<|begin_of_text|>"
    write(path, "idefics3", (opening, *TOKENS), config, _processor, opening=opening)


def config(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    return {
        "text_config": {**TEXT, "model_type": "llama", "vocab_size": vocabulary, "head_dim": HEAD_DIM},
        "vision_config": VISION,
        "image_token_id": ids["<image>"],
        "pad_token_id": None,
    }


def _processor(tokenizer: Any) -> Any:
    from transformers import Idefics3ImageProcessor, Idefics3Processor

    images = Idefics3ImageProcessor(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE})
    return Idefics3Processor(images, tokenizer, image_seq_len=(SIDE // PATCH // 2) ** 2)
