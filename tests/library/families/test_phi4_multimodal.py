"""Phi-4-multimodal: crops of 448 pixels, since its processor counts with no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from mllm_embed.embedder import Embedder
from mllm_embed.errors import InvalidMedia
from mllm_embed.families.phi4_multimodal import Crops
from tests.tiny_models import TEXT, VISION, write

NAMED_TOKENS = {"image_token": "<|image|>", "audio_token": "<|audio|>"}


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 1, "num_hidden_layers": 2}
"""A crop has a thousand patches."""


def make_tiny(path: Path) -> None:
    tokens = ("<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", *NAMED_TOKENS.values())
    write(path, "phi4_multimodal", tokens, _config, _processor, named_tokens=NAMED_TOKENS)


def _config(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    audio = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_blocks": 1,
        "num_attention_heads": 1,
        "ext_pw_out_channel": 32,
        "depthwise_separable_out_channel": 32,
        "nemo_conv_channels": 32,
        "audio_token_id": ids["<|audio|>"],
    }
    return {
        **TEXT,
        "max_position_embeddings": 4096,
        "vocab_size": vocabulary,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|end|>"],
        "vision_config": {**VISION, **SMALL, "image_size": 448, "image_token_id": ids["<|image|>"]},
        "audio_config": audio,
    }


def _processor(tokenizer: Any) -> Any:
    from transformers import Phi4MultimodalFeatureExtractor, Phi4MultimodalImageProcessor, Phi4MultimodalProcessor

    return Phi4MultimodalProcessor(Phi4MultimodalImageProcessor(), Phi4MultimodalFeatureExtractor(), tokenizer)


def test_the_rule_counts_like_the_processor() -> None:
    """It has no method that counts; its pictures do, small ones and some that are shrunk."""
    import torch

    from mllm_embed.modeling import torch_compat

    torch_compat.apply()
    from transformers import Phi4MultimodalImageProcessor

    sides = (10, 27, 28, 29, 447, 448, 449, 463, 900, 1400)
    sizes = [(w, h) for w in sides for h in sides if max(w, h) <= Crops.MAX_ASPECT * min(w, h)]
    sizes += [(4000, 300), (300, 4000), (3000, 2900), (2700, 2690)]
    processor, rule = Phi4MultimodalImageProcessor(do_rescale=False, do_normalize=False), Crops(28, 448, 36)
    for width, height in sizes:
        counted = processor(images=[torch.zeros(3, height, width)], return_tensors="pt")["num_img_tokens"]
        assert [rule.visual_tokens(width, height)] == list(counted), (width, height)


def test_a_sliver_that_its_processor_refuses_is_bad_input(tiny_model: Callable[[str], Path]) -> None:
    with Embedder.load(tiny_model("phi4_multimodal"), backend="transformers") as embedder:
        assert embedder.embed([PIL.Image.new("RGB", (440, 10))]).shape == (1, 64)
        with pytest.raises(InvalidMedia, match="at most 44 times the shorter one, but the image is 9 x 448"):
            embedder.embed([PIL.Image.new("RGB", (9, 448))])


def test_the_limit_of_aspects_is_within_its_processors() -> None:
    import torch

    from mllm_embed.modeling import torch_compat

    torch_compat.apply()
    from transformers import Phi4MultimodalImageProcessor

    processor = Phi4MultimodalImageProcessor()
    processor(images=[torch.zeros(3, 10, 10 * Crops.MAX_ASPECT)])
    with pytest.raises(ValueError, match="aspect ratio is very extreme"):
        processor(images=[torch.zeros(3, 9, 448)])


def test_other_crops_than_its_processor_can_count_are_refused(refused_with: Callable[..., None]) -> None:
    refused_with("phi4_multimodal", {"vision_config": {"crop_size": 336}}, "crop_size must be 448, but is 336")
