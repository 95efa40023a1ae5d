"""LLaVA-OneVision: how a picture is read depends on how many there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import PIL.Image

from mllm_embed.model_dir import open_model_dir
from mllm_embed.types import EmbedInput
from tests.library.families import test_llava, test_llava_next
from tests.tiny_models import PATCH, QWEN_TOKENS, SIDE, TEXT, VISION, write

GRIDS = [*test_llava_next.GRIDS, [224, 224]]
"""The last one has more than nine crops, so that its tokens are thinned out."""

TRANSFORMERS_4 = test_llava.TRANSFORMERS_4


def make_tiny(path: Path) -> None:
    tokens = (*QWEN_TOKENS, "<image>", "<video>")
    write(path, "llava_onevision", tokens, _config, _processor, on_the_hub=test_llava.ON_THE_HUB)


def _config(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    return {
        "text_config": {**TEXT, "model_type": "qwen2", "vocab_size": vocabulary},
        "vision_config": {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        "image_token_index": ids["<image>"],
        "video_token_index": ids["<video>"],
        "image_grid_pinpoints": GRIDS,
    }


def _processor(tokenizer: Any) -> Any:
    from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

    size = {"height": SIDE, "width": SIDE}
    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=GRIDS),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )


def test_several_pictures_are_overviews(
    tiny_model: Callable[[str], Path], own_processor: Callable[[Path], Any], renderer: Callable[..., Any]
) -> None:
    model_dir = open_model_dir(tiny_model("llava_onevision"))
    processor, render = own_processor(model_dir.weights), renderer(model_dir)
    images = [PIL.Image.new("RGB", size) for size in ((150, 60), (96, 80))]
    prompt = render.render(EmbedInput.of(*images), "", images)
    text = model_dir.template.text.format(instruction="", content="<image><image>")
    assert render.expand(prompt, model_dir.pixels) == list(processor(text=text, images=[images])["input_ids"][0])


def test_another_way_of_reading_pictures_is_refused(refused_with: Callable[..., None]) -> None:
    refused_with("llava_onevision", {"vision_aspect_ratio": "pad"}, "vision_aspect_ratio must be 'anyres_max_9'")
