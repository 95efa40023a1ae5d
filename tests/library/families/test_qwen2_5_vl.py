"""Qwen2.5-VL: window attention in the tower, one layer with full attention."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.library.families import test_qwen2_vl
from tests.tiny_models import QWEN_VL_TOKENS, TEXT, qwen_vl_ids, write

TRANSFORMERS_4 = test_qwen2_vl.TRANSFORMERS_4


def make_tiny(path: Path) -> None:
    write(path, "qwen2_5_vl", QWEN_VL_TOKENS, _config, _processor)


def _config(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    vision = {"depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64}
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10_000.0}
    return {
        "text_config": {**TEXT, "vocab_size": vocabulary, "rope_parameters": rope},
        "vision_config": {**vision, "window_size": 56, "fullatt_block_indexes": [1]},
        **qwen_vl_ids(ids),
    }


def _processor(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    return Qwen2_5_VLProcessor(Qwen2VLImageProcessor(size=size), tokenizer, Qwen2VLVideoProcessor(size=size))
