"""Adapters that were saved under transformers 4, which called modules otherwise, give the same vectors here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.families import FAMILIES
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import InputBuilder
from mllm_embed.modeling.loading import attach_adapter, load_base
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput
from tests.tiny_models import file_of

PREFIX = "base_model.model."


def save_random_adapter(model_dir: ModelDir, path: Path) -> None:
    """Write an adapter on the language model and the tower."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    family = model_dir.family
    config = LoraConfig(r=4, lora_alpha=8, target_modules=[*family.lora_targets, *family.tower_targets])
    model = get_peft_model(load_base(model_dir.weights), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(path))


def rename(path: Path, names: dict[str, str]) -> int:
    """Give the adapter's weights other names; returns how many have one."""
    file = path / "adapter_model.safetensors"
    weights: dict[str, Tensor] = {}
    for key, tensor in load_file(file).items():
        name = key.removeprefix(PREFIX)
        start = next((part for part in names if name.startswith(part)), "")
        weights[PREFIX + names.get(start, start) + name.removeprefix(start)] = tensor
    renamed = len(weights.keys() - load_file(file).keys())
    save_file(weights, file, metadata={"format": "pt"})
    return renamed


def vector(model: nn.Module, model_dir: ModelDir, image: PIL.Image.Image) -> Tensor:
    renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
    builder = InputBuilder(model_dir, renderer.image_token_id)
    prompt = renderer.render(EmbedInput.of(image, "a red cat"), "find it", [image])
    with torch.inference_mode():
        return torch.nn.functional.normalize(encode(model.eval(), builder.build([prompt])))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_transformers_4_gives_its_vectors(
    family: str, tiny_model: Callable[[str], Path], draw: Callable[..., PIL.Image.Image], tmp_path: Path
) -> None:
    names: dict[str, str] = getattr(file_of(family), "TRANSFORMERS_4", {})
    if not names:
        pytest.skip("transformers 4 called this family's modules as transformers 5 does")
    model_dir, image = open_model_dir(tiny_model(family)), draw(1)
    save_random_adapter(model_dir, tmp_path)
    plain = vector(load_base(model_dir.weights), model_dir, image)
    tuned = vector(attach_adapter(load_base(model_dir.weights), tmp_path), model_dir, image)
    assert float((plain * tuned).sum()) < 0.99
    assert rename(tmp_path, names) == len(load_file(tmp_path / "adapter_model.safetensors"))
    again = vector(attach_adapter(load_base(model_dir.weights), tmp_path), model_dir, image)
    torch.testing.assert_close(again, tuned, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("family", "lost"), [("qwen2_vl", "visual.blocks.0"), ("llava_next", "language_model.model.")])
def test_one_that_lacks_a_part_is_refused(
    family: str, lost: str, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    model_dir = open_model_dir(tiny_model(family))
    save_random_adapter(model_dir, tmp_path)
    rename(tmp_path, file_of(family).TRANSFORMERS_4)
    file = tmp_path / "adapter_model.safetensors"
    kept = {key: tensor for key, tensor in load_file(file).items() if lost not in key}
    assert kept
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(IncompatibleCheckpoint, match=r"lacks \d+ adapter weights"):
        attach_adapter(load_base(model_dir.weights), tmp_path)
