"""VLM2Vec on Qwen2-VL: our vectors are those of the library version whose vectors are its authors'.

`vlm2vec_golden.json` holds numbers only. They were made once with transformers 4.52.3, whose Qwen2-VL gives the same
vectors as VLM2Vec's own fork of it (difference 0.0 for prompts without marks around the picture): a tiny model whose
weights are drawn by the names of its parameters, as below, and read at the last token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mllm_embed.modeling import torch_compat
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import text_positions
from tests.tiny_models import draw_by_name

GOLDEN = json.loads((Path(__file__).parent / "vlm2vec_golden.json").read_text(encoding="utf-8"))
IMAGE, GRID = 193, [[1, 4, 6]]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch_compat.apply()
    from transformers import AutoConfig, AutoModelForImageTextToText

    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10_000.0}
    vision = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "hidden_size": 64, "patch_size": 14}
    config = AutoConfig.for_model(
        "qwen2_vl",
        text_config={**text, "num_key_value_heads": 1, "vocab_size": 200, "rope_parameters": rope},
        vision_config={**vision, "spatial_merge_size": 2},
        image_token_id=IMAGE,
        video_token_id=194,
        vision_start_token_id=190,
        vision_end_token_id=191,
        tie_word_embeddings=True,
    )
    config._attn_implementation = "eager"
    made: nn.Module = AutoModelForImageTextToText.from_config(config).eval()
    draw_by_name(made)
    return made


def vector(model: nn.Module, ids: list[int], *, one_dimensional: bool) -> torch.Tensor:
    row = torch.tensor([ids])
    inputs: dict[str, Any] = {
        "input_ids": row,
        "attention_mask": torch.ones_like(row),
        "mm_token_type_ids": (row == IMAGE).int(),
    }
    if IMAGE in ids:
        pixels = np.random.RandomState(7).standard_normal((24, 1176)).astype(np.float32)
        inputs |= {"pixel_values": torch.from_numpy(pixels), "image_grid_thw": torch.tensor(GRID)}
    if one_dimensional:
        inputs["position_ids"] = text_positions(inputs["attention_mask"])
    with torch.inference_mode():
        return nn.functional.normalize(encode(model, inputs))[0]


@pytest.mark.parametrize(
    ("kind", "one_dimensional"), [("text", True), ("text", False), ("image and text", True), ("marked image", False)]
)
def test_vectors_are_the_authors(kind: str, one_dimensional: bool, model: nn.Module) -> None:
    row = GOLDEN[kind]
    ours = vector(model, row["ids"], one_dimensional=one_dimensional)
    torch.testing.assert_close(ours, torch.tensor(row["vector"]), atol=1e-5, rtol=0)


def test_the_architectures_own_positions_would_be_noticed(model: nn.Module) -> None:
    row = GOLDEN["image and text"]
    ours = vector(model, row["ids"], one_dimensional=False)
    assert (ours - torch.tensor(row["vector"])).abs().max() > 1e-3
