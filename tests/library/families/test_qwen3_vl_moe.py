"""Qwen3-VL with experts: two of four for each token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.library.families import test_qwen3_5
from tests.tiny_models import HEAD_DIM, QWEN_VL_TOKENS, TEXT, qwen_vl_ids, write


def make_tiny(path: Path) -> None:
    write(path, "qwen3_vl_moe", QWEN_VL_TOKENS, _config, test_qwen3_5.processor)


def _config(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True, "rope_theta": 10_000.0}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    return {
        "text_config": {**TEXT, **experts, "vocab_size": vocabulary, "head_dim": HEAD_DIM, "rope_parameters": rope},
        "vision_config": {**test_qwen3_5.VISION, "deepstack_visual_indexes": [0]},
        **qwen_vl_ids(ids),
        "tie_word_embeddings": False,
    }
