"""LLaVA 1.5: a CLIP tower whose class token is dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import HEAD_DIM, PATCH, SIDE, TEXT, VISION, write

TOKENS = ("<s>", "</s>", "<unk>", "<image>")
ON_THE_HUB = {"vision_tower.": "vision_tower.vision_model."}
TRANSFORMERS_4 = {
    "model.language_model.": "language_model.model.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}
"""What modules were called up to transformers 4.51."""


def make_tiny(path: Path) -> None:
    write(path, "llava", TOKENS, config, _processor, opening="<s>", on_the_hub=ON_THE_HUB)


def config(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    return {
        "text_config": {**TEXT, "model_type": "llama", "vocab_size": vocabulary, "head_dim": HEAD_DIM},
        "vision_config": {**VISION, "model_type": "clip_vision_model"},
        "image_token_index": ids["<image>"],
        "image_seq_length": (SIDE // PATCH) ** 2,
    }


def _processor(tokenizer: Any) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return LlavaProcessor(images, tokenizer, PATCH, "default", num_additional_image_tokens=1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vision_feature_select_strategy": "full"}, "must be 'default'"),
        ({"vision_config": {}}, "has no 'patch_size'"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(
    changes: dict[str, Any], says: str, refused_with: Callable[..., None]
) -> None:
    refused_with("llava", changes, says)
