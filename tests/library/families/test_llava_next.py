"""LLaVA 1.6: crops of the picture's best grid, without the padding around the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.library.families import test_llava
from tests.tiny_models import PATCH, SIDE, write

GRIDS = [[56, 112], [112, 56], [112, 112], [56, 168], [168, 56]]

TRANSFORMERS_4 = test_llava.TRANSFORMERS_4


def make_tiny(path: Path) -> None:
    names = test_llava.ON_THE_HUB
    write(path, "llava_next", test_llava.TOKENS, _config, _processor, opening="<s>", on_the_hub=names)


def _config(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    return {**test_llava.config(ids, vocabulary), "image_grid_pinpoints": GRIDS}


def _processor(tokenizer: Any) -> Any:
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    crop = {"height": SIDE, "width": SIDE}
    images = LlavaNextImageProcessor(size={"shortest_edge": SIDE}, crop_size=crop, image_grid_pinpoints=GRIDS)
    return LlavaNextProcessor(images, tokenizer, PATCH, "default", num_additional_image_tokens=1)


def test_a_model_that_keeps_the_class_token_is_refused(refused_with: Callable[..., None]) -> None:
    refused_with("llava_next", {"vision_feature_select_strategy": "full"}, "must be 'default'")
