from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.families import FAMILIES
from mllm_embed.model_dir import open_model_dir
from mllm_embed.modeling.loading import attach_adapter, inner_model, load_base, load_model


@pytest.fixture
def model_copy(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model("qwen3_vl"), tmp_path / "model"))


@pytest.fixture
def adapter_copy(tiny_adapter: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_adapter("qwen3_vl") / "adapter", tmp_path / "adapter"))


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_names_the_real_submodules(family: str, tiny_adapter: Callable[[str], Path]) -> None:
    model_dir = open_model_dir(tiny_adapter(family))
    model = load_model(model_dir)
    assert not model.training
    base = model.get_base_model()  # type: ignore[operator]
    assert base.get_submodule(model_dir.family.tower)
    assert base.get_submodule(model_dir.family.language_model)
    if model_dir.family.projector is not None:
        assert base.get_submodule(model_dir.family.projector)
    linear = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    tower = {name for name in linear if name.startswith(model_dir.family.tower)}
    for target in model_dir.family.tower_targets:
        assert any(name.endswith(target) for name in tower), target
    assert inner_model(model) is base.model
    adapted = {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    assert {name.rsplit(".", 1)[-1] for name in adapted} == set(model_dir.family.lora_targets)
    assert all(f".{model_dir.family.language_model}." in name for name in adapted)


def test_a_lower_precision_is_loaded_as_such(model_copy: Path) -> None:
    assert {p.dtype for p in load_base(model_copy, precision="bfloat16").parameters()} == {torch.bfloat16}


def test_a_missing_weight_is_refused(model_copy: Path) -> None:
    rewrite(model_copy / "model.safetensors", lambda weights: {k: v for k, v in weights.items() if "q_norm" not in k})
    with pytest.raises(IncompatibleCheckpoint, match=r"lacks 2 weights, the first is .*q_norm"):
        load_base(model_copy)


def test_a_truncated_weight_file_is_refused(model_copy: Path) -> None:
    file = model_copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(IncompatibleCheckpoint, match="could not be loaded"):
        load_base(model_copy)


def test_weights_of_another_shape_are_refused(model_copy: Path) -> None:
    config = json.loads((model_copy / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["intermediate_size"] = 96
    (model_copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(IncompatibleCheckpoint):
        load_base(model_copy)


def test_an_adapter_with_foreign_keys_is_refused(model_copy: Path, adapter_copy: Path) -> None:
    rewrite(
        adapter_copy / "adapter_model.safetensors",
        lambda weights: {key.replace("language_model", "text_model"): value for key, value in weights.items()},
    )
    with pytest.raises(IncompatibleCheckpoint, match="adapter weights fit nowhere"):
        attach_adapter(load_base(model_copy), adapter_copy)


def test_an_adapter_without_effect_is_refused(model_copy: Path, adapter_copy: Path) -> None:
    rewrite(
        adapter_copy / "adapter_model.safetensors",
        lambda weights: {key: value * ("lora_A" in key) for key, value in weights.items()},
    )
    with pytest.raises(IncompatibleCheckpoint, match="changes nothing"):
        attach_adapter(load_base(model_copy), adapter_copy)
