"""What holds of every family, on its tiny model: what is here needs no line for a new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from mllm_embed import families
from mllm_embed.errors import IncompatibleCheckpoint, UnknownFamily
from mllm_embed.families import FAMILIES, Family, detect_family, get_family
from mllm_embed.families.pictures import PixelRule
from mllm_embed.model_dir import open_model_dir
from mllm_embed.types import EmbedInput, RenderedPrompt
from tests.tiny_models import file_of

SIZES = [(96, 80), (150, 60), (60, 150), (40, 200), (1, 1), (57, 56), (56, 57), (300, 310), (1, 150), (640, 97)]

TinyModel = Callable[[str], Path]


@pytest.mark.fast
def test_every_family_has_its_file_and_its_test_file() -> None:
    for name, family in FAMILIES.items():
        assert family.name == name
        assert Path(families.__path__[0], f"{name}.py").is_file()
        assert Path(__file__).with_name(f"test_{name}.py").is_file(), (
            f"{name} needs a test file that makes a tiny model"
        )
        assert get_family(name) is detect_family(name) is family


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


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ids_are_those_of_the_familys_own_processor(
    family: str, tiny_model: TinyModel, own_processor: Callable[[Path], Any], renderer: Callable[..., Any]
) -> None:
    """A prompt with a picture between texts, written as one string for transformers' processor of the family."""
    model_dir = open_model_dir(tiny_model(family))
    processor, render = own_processor(model_dir.weights), renderer(model_dir)
    slot = "".join(model_dir.family.image_slot)
    for size in SIZES:
        if max(size) > model_dir.pixels.MAX_ASPECT * min(size):
            continue  # refused before it comes to a processor
        image = PIL.Image.new("RGB", size)
        item = EmbedInput.of("a red", image, "cat")
        ours = render.expand(render.render(item, "find", [image]), model_dir.pixels)
        text = model_dir.template.text.format(instruction="find", content=f"a red{slot}cat")
        theirs = processor(text=text, images=[[image]], return_tensors=None)["input_ids"][0]
        assert ours == list(theirs), size


@pytest.mark.parametrize("family", FAMILIES)
def test_typed_control_tokens_are_text(family: str, tiny_model: TinyModel, renderer: Callable[..., Any]) -> None:
    """As content and as instruction: the control ids of a prompt are the template's and the pictures', in order."""
    from tokenizers import Tokenizer

    model_dir = open_model_dir(tiny_model(family))
    added = Tokenizer.from_file(str(model_dir.tokenizer_file)).get_added_tokens_decoder()
    assert all(token.special for token in added.values())
    render, image = renderer(model_dir), PIL.Image.new("RGB", (60, 60))

    def control_ids(text: str) -> list[int]:
        prompt = render.render(EmbedInput.of(text, image, text), text, [image])
        return [token_id for token_id in render.expand(prompt, model_dir.pixels) if token_id in added]

    neutral = control_ids("x")
    for typed in ("".join(model_dir.family.image_slot), *(token.content for token in added.values())):
        assert control_ids(typed) == neutral, typed


@pytest.mark.parametrize("family", FAMILIES)
def test_the_picture_rule_counts_like_the_familys_processor(
    family: str, tiny_model: TinyModel, own_processor: Callable[[Path], Any], renderer: Callable[..., Any]
) -> None:
    model_dir = open_model_dir(tiny_model(family))
    processor, render = own_processor(model_dir.weights), renderer(model_dir)
    sides = [*range(1, 230, 7), 311, 448, 512, 640, 1080, 1920]
    sizes = [(w, h) for w in sides for h in sides if max(w, h) <= PixelRule.MAX_ASPECT * min(w, h)]
    if not hasattr(processor, "_get_num_multimodal_tokens"):
        pytest.skip(f"transformers' processor of {family} counts nothing by itself")
    counted = processor._get_num_multimodal_tokens([(height, width) for width, height in sizes])["num_image_tokens"]
    uncounted = getattr(file_of(family), "UNCOUNTED", 0)
    for (width, height), expected in zip(sizes, counted, strict=True):
        image = PIL.Image.new("1", (width, height))
        one = RenderedPrompt((render.image_token_id,), (image,))
        assert len(render.expand(one, model_dir.pixels)) == expected + uncounted, (width, height)


@pytest.mark.parametrize("family", FAMILIES)
def test_limits_are_moved_or_refused(family: str, tiny_model: TinyModel) -> None:
    """Where a processor has fixed sizes, other limits are refused; where it takes any, they are taken."""
    model_dir = open_model_dir(tiny_model(family))
    smallest, largest = model_dir.pixels.limits
    moved = model_dir.with_recipe(min_pixels=smallest - 1)
    if model_dir.pixels.options():
        assert moved.pixels.limits == (smallest - 1, largest)
    else:
        with pytest.raises(IncompatibleCheckpoint, match=f"min_pixels and max_pixels must be {smallest} and {largest}"):
            _ = moved.pixels


@pytest.mark.parametrize(
    ("family", "model_type"),
    [(family.name, model_type) for family in FAMILIES.values() for model_type in family.text_defaults],
)
def test_what_a_configuration_leaves_out_is_transformers_default(family: str, model_type: str) -> None:
    from mllm_embed.modeling import torch_compat

    torch_compat.apply()
    from transformers import AutoConfig

    known, config = get_family(family), AutoConfig.for_model(model_type)
    assert {key: getattr(config, key) for key in known.text_defaults[model_type]} == known.text_defaults[model_type]
    read = known.text_config({"text_config": {"model_type": model_type, "hidden_size": 8}})
    assert read == {**known.text_defaults[model_type], "model_type": model_type, "hidden_size": 8}
