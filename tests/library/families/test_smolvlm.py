"""SmolVLM: Idefics 3's pictures, with a processor of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.library.families import test_idefics3
from tests.tiny_models import PATCH, SIDE, write


def make_tiny(path: Path) -> None:
    write(path, "smolvlm", ("<|im_start|>", *test_idefics3.TOKENS), test_idefics3.config, _processor)


def _processor(tokenizer: Any) -> Any:
    from transformers import SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    size = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    videos = SmolVLMVideoProcessor(size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE})
    return SmolVLMProcessor(SmolVLMImageProcessor(**size), tokenizer, videos, image_seq_len=(SIDE // PATCH // 2) ** 2)
