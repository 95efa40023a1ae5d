"""Qwen3.5: one layer of linear attention, one of full."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tiny_models import QWEN_VL_TOKENS, TEXT, qwen_vl_ids, write

VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
}


def make_tiny(path: Path) -> None:
    write(path, "qwen3_5", (*QWEN_VL_TOKENS, "<embedding>"), _config, processor)


def _config(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    rope = {
        "rope_type": "default",
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.25,
        "rope_theta": 10_000.0,
    }
    linear = {
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
        "layer_types": ["linear_attention", "full_attention"],
    }
    return {
        "text_config": {**TEXT, **linear, "vocab_size": vocabulary, "head_dim": 64, "rope_parameters": rope},
        "vision_config": VISION,
        **qwen_vl_ids(ids),
    }


def processor(tokenizer: Any) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    size = {"shortest_edge": 64 * 64, "longest_edge": 96 * 96}
    images = Qwen2VLImageProcessor(size=size, patch_size=16)
    return Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(size=size, patch_size=16))
