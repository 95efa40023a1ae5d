"""mmE5 on Llama 3.2 Vision: our vectors are those of the library version that its authors trained and tested with.

`mme5_golden.json` holds numbers only, made once with transformers 4.48.3, whose Llama 3.2 Vision mmE5's code calls as
it is: a tiny model whose weights are drawn by the names of its parameters under transformers 5, the last of its hidden
states at the last token. Prompts are in mmE5's order: the picture, the opening token, the text.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mllm_embed.modeling import torch_compat
from mllm_embed.modeling.cross_attention import follow_authors, stand_beside
from mllm_embed.modeling.encode import encode
from tests.tiny_models import draw_by_name

GOLDEN = json.loads((Path(__file__).parent / "mme5_golden.json").read_text(encoding="utf-8"))
PICTURE = 200


@pytest.fixture
def model() -> nn.Module:
    torch_compat.apply()
    from transformers import AutoConfig, AutoModelForMultimodalLM

    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "vocab_size": 200, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    vision = {"hidden_size": 32, "intermediate_size": 64, "attention_heads": 2, "num_hidden_layers": 2}
    config = AutoConfig.for_model(
        "mllama",
        text_config={**text, "cross_attention_layers": [1], "rope_parameters": rope},
        vision_config={
            **vision,
            "num_global_layers": 1,
            "intermediate_layers_indices": [0],
            "image_size": 28,
            "patch_size": 14,
            "vision_output_dim": 64,
        },
        image_token_index=PICTURE,
    )
    made: nn.Module = AutoModelForMultimodalLM.from_config(config, attn_implementation="eager").eval()
    draw_by_name(made)
    return made


def picture(tiles: int, aspect: int) -> dict[str, torch.Tensor]:
    """One row with one picture, as the image processor gives it: noise on its tiles, the others blank."""
    pixels = np.random.RandomState(7).standard_normal((1, 1, 4, 3, 28, 28)).astype(np.float32)
    pixels[:, :, tiles:] = 0
    return {
        "pixel_values": torch.from_numpy(pixels),
        "aspect_ratio_ids": torch.tensor([[aspect]]),
        "aspect_ratio_mask": (torch.arange(4) < tiles).long().view(1, 1, 4),
    }


def vectors(model: nn.Module, kinds: list[str]) -> torch.Tensor:
    """Embed prompts as one batch, padded on the right."""
    rows = [GOLDEN[kind] for kind in kinds]
    width = max(len(row["ids"]) for row in rows)
    tokens = torch.tensor([row["ids"] + [0] * (width - len(row["ids"])) for row in rows])
    lengths = torch.tensor([[len(row["ids"])] for row in rows])
    inputs = {"input_ids": tokens, "attention_mask": (torch.arange(width) < lengths).long()}
    if seeing := [index for index, row in enumerate(rows) if row["tiles"]]:
        pictures = [picture(rows[index]["tiles"], rows[index]["aspect"]) for index in seeing]
        pixels = {name: torch.cat([each[name] for each in pictures]) for name in pictures[0]}
        inputs |= stand_beside(pixels, seeing, tokens, PICTURE)
    with torch.inference_mode():
        return nn.functional.normalize(encode(model, inputs))


@pytest.mark.parametrize("kinds", [[kind] for kind in GOLDEN] + [list(GOLDEN)], ids=" and ".join)
def test_vectors_are_the_authors_alone_and_in_a_batch(kinds: list[str], model: nn.Module) -> None:
    follow_authors(model)
    expected = torch.tensor([GOLDEN[kind]["vector"] for kind in kinds])
    torch.testing.assert_close(vectors(model, kinds), expected, atol=1e-5, rtol=0)


def test_transformers_alone_would_be_noticed(model: nn.Module) -> None:
    """If it is not any more, transformers computes as the authors do again, and a hook can go."""
    assert (vectors(model, ["picture"]) - torch.tensor(GOLDEN["picture"]["vector"])).abs().max() > 1e-3
