"""The picture rules that several families share, against transformers' own arithmetic."""

from __future__ import annotations

import pytest

from mllm_embed.families.pictures import PixelRule


@pytest.mark.parametrize("limits", [(28, 56 * 56, 28 * 28 * 1280), (32, 96 * 96, 112 * 112), (28, 28 * 28, 28 * 28)])
def test_the_pixel_rule_is_transformers_smart_resize(limits: tuple[int, int, int]) -> None:
    from mllm_embed.modeling import torch_compat

    torch_compat.apply()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    factor, smallest, largest = limits
    rule = PixelRule(factor, smallest, largest)
    sides = [*range(1, 130, 3), 224, 225, 336, 448, 511, 640, 1023, 1080, 1920, 4000, 9999]
    checked = 0
    for width in sides:
        for height in sides:
            if max(width, height) > PixelRule.MAX_ASPECT * min(width, height):
                continue
            expected = smart_resize(height, width, factor=factor, min_pixels=smallest, max_pixels=largest)
            assert rule.size(width, height) == expected[::-1], (width, height)
            assert rule.visual_tokens(width, height) == expected[0] * expected[1] // factor**2
            checked += 1
    assert checked > 2_000


def test_the_aspect_limit_is_transformers_own() -> None:
    from mllm_embed.modeling import torch_compat

    torch_compat.apply()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    limit = PixelRule.MAX_ASPECT
    smart_resize(10, 10 * limit, factor=28, min_pixels=28 * 28, max_pixels=10**6)
    with pytest.raises(ValueError, match="aspect ratio"):
        smart_resize(10, 10 * limit + 1, factor=28, min_pixels=28 * 28, max_pixels=10**6)
