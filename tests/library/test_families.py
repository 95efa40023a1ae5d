from __future__ import annotations

import pkgutil

import pytest

from mllm_embed import families
from mllm_embed.errors import UnknownFamily
from mllm_embed.families import FAMILIES, Family, detect_family, get_family
from mllm_embed.families.base import PixelRule


@pytest.mark.fast
def test_every_family_file_is_registered_under_its_name() -> None:
    files = {module.name for module in pkgutil.iter_modules(families.__path__)} - {"base"}
    assert set(FAMILIES) == files
    for name, family in FAMILIES.items():
        assert family.name == name
        assert get_family(name) is family
        assert detect_family(family.model_type) is family


@pytest.mark.fast
@pytest.mark.parametrize("name", ["", "gpt2", "Qwen2_VL"])
def test_unknown_families_are_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownFamily, match=f"family must be one of .*qwen3_vl.*, but is {name!r}"):
        get_family(name)
    with pytest.raises(UnknownFamily, match=f"model_type must be one of .*qwen3_vl.* says {name!r}"):
        detect_family(name)


@pytest.mark.fast
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_slots_and_templates_are_whole(family: Family) -> None:
    assert family.image_token in family.image_slot
    assert family.default_template in family.templates
    for name, template in family.templates.items():
        assert template.name == name
        assert template.version >= 1
        assert template.text.count("{content}") == 1
        assert template.text.count("{instruction}") <= 1
        assert family.image_token not in template.text


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
