from __future__ import annotations

import json
import pkgutil
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from mllm_embed import families
from mllm_embed.errors import IncompatibleCheckpoint, UnknownFamily
from mllm_embed.families import FAMILIES, Family, detect_family, get_family
from mllm_embed.families.base import TEXT_DEFAULTS, text_config
from mllm_embed.families.pictures import PixelRule
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput, RenderedPrompt


@pytest.mark.fast
def test_every_family_file_is_registered_under_its_name() -> None:
    files = {module.name for module in pkgutil.iter_modules(families.__path__)} - {"base", "pictures"}
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
        whole, apart = (template.text.count(marker) for marker in ("{content}", "{images}"))
        assert (whole, apart, template.text.count("{texts}")) in {(1, 0, 0), (0, 1, 1)}
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


OTHERS = ("llava", "llava_next", "llava_onevision", "internvl", "idefics3", "gemma3")
"""Families whose own processor can be run on a text, with the text that it takes for a picture."""
SIZES = [(96, 80), (150, 60), (60, 150), (40, 200), (1, 1), (57, 56), (56, 57), (300, 310), (1, 150), (640, 97)]

TinyModel = Callable[[str], Path]


def renderer(model_dir: ModelDir) -> PromptRenderer:
    return PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)


def own_processor(path: Path) -> Any:
    from mllm_embed.modeling import torch_compat

    torch_compat.apply()
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(str(path))


@pytest.mark.parametrize("family", OTHERS)
def test_the_ids_are_those_of_the_familys_own_processor(family: str, tiny_model: TinyModel) -> None:
    """A prompt with a picture between texts, written as one string for transformers' processor of the family."""
    model_dir = open_model_dir(tiny_model(family))
    processor, render = own_processor(model_dir.weights), renderer(model_dir)
    for size in SIZES:
        image = PIL.Image.new("RGB", size)
        item = EmbedInput.of("a red", image, "cat")
        ours = render.expand(render.render(item, "find", [image]), model_dir.pixels)
        text = model_dir.template.text.format(instruction="find", content=f"a red{model_dir.family.image_token}cat")
        theirs = processor(text=text, images=[[image]], return_tensors=None)["input_ids"][0]
        assert ours == list(theirs), size


@pytest.mark.parametrize("family", OTHERS)
def test_the_picture_rule_counts_like_the_familys_processor(family: str, tiny_model: TinyModel) -> None:
    model_dir = open_model_dir(tiny_model(family))
    processor, render = own_processor(model_dir.weights), renderer(model_dir)
    sides = [*range(1, 230, 7), 311, 448, 512, 640, 1080, 1920]
    sizes = [(w, h) for w in sides for h in sides if max(w, h) <= PixelRule.MAX_ASPECT * min(w, h)]
    counted = processor._get_num_multimodal_tokens([(height, width) for width, height in sizes])["num_image_tokens"]
    extra = 2 if family == "gemma3" else 0  # its processor leaves out the two marks around a picture
    for (width, height), expected in zip(sizes, counted, strict=True):
        image = PIL.Image.new("1", (width, height))
        one = RenderedPrompt((render.image_token_id,), (image,))
        assert len(render.expand(one, model_dir.pixels)) == expected + extra, (width, height)


def test_several_pictures_of_llava_onevision_are_overviews(tiny_model: TinyModel) -> None:
    model_dir = open_model_dir(tiny_model("llava_onevision"))
    processor, render = own_processor(model_dir.weights), renderer(model_dir)
    images = [PIL.Image.new("RGB", size) for size in ((150, 60), (96, 80))]
    prompt = render.render(EmbedInput.of(*images), "", images)
    text = model_dir.template.text.format(instruction="", content="<image><image>")
    assert render.expand(prompt, model_dir.pixels) == list(processor(text=text, images=[images])["input_ids"][0])


@pytest.mark.parametrize("family", OTHERS)
def test_limits_of_fixed_sizes_cannot_be_moved(family: str, tiny_model: TinyModel) -> None:
    model_dir = open_model_dir(tiny_model(family))
    moved = model_dir.with_recipe(min_pixels=model_dir.recipe.min_pixels - 1)
    with pytest.raises(IncompatibleCheckpoint, match="min_pixels and max_pixels must be 3136"):
        _ = moved.pixels


@pytest.mark.parametrize(
    ("family", "changes", "says"),
    [
        ("llava", {"vision_feature_select_strategy": "full"}, "must be 'default'"),
        ("llava_next", {"vision_feature_select_strategy": "full"}, "must be 'default'"),
        ("llava_onevision", {"vision_aspect_ratio": "pad"}, "must be anyres_max_N"),
        ("llava", {"vision_config": {}}, "has no 'patch_size'"),
        ("internvl", {"downsample_ratio": "x"}, "cannot be honoured"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(
    family: str, changes: dict[str, Any], says: str, tiny_model: TinyModel, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model(family), tmp_path / "model"))
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises(IncompatibleCheckpoint, match=says):
        open_model_dir(model)


@pytest.mark.parametrize("model_type", TEXT_DEFAULTS)
def test_what_a_configuration_leaves_out_is_transformers_default(model_type: str) -> None:
    from mllm_embed.modeling import torch_compat

    torch_compat.apply()
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type)
    assert {name: getattr(config, name) for name in TEXT_DEFAULTS[model_type]} == TEXT_DEFAULTS[model_type]
    assert text_config({"text_config": {"model_type": model_type, "hidden_size": 8}})["hidden_size"] == 8
