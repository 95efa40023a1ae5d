"""Which adapters vLLM is not given, so that `--backend auto` takes transformers for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from mllm_embed.backends import load_backend
from mllm_embed.backends.support import vllm_refusal
from mllm_embed.model_dir import RECIPE_FILE, ModelDir, open_model_dir
from mllm_embed.modeling.loading import load_base

TinyModel = Callable[[str], Path]
WEIGHTS = "model.safetensors"


@pytest.fixture
def tuned(tiny_adapter: TinyModel, tmp_path: Path) -> Callable[[str], Path]:
    """Copy a tiny model directory with an adapter, to be changed."""

    def copy(family: str) -> Path:
        path = Path(shutil.copytree(tiny_adapter(family), tmp_path / family))
        recipe = json.loads((path / RECIPE_FILE).read_text(encoding="utf-8"))
        (path / RECIPE_FILE).write_text(json.dumps({**recipe, "adapter_sha256": None}), encoding="utf-8")
        return path

    return copy


def test_plain_adapters_are_run(tuned: Callable[[str], Path]) -> None:
    for family in ("qwen3_vl", "llava"):
        assert vllm_refusal(open_model_dir(tuned(family))) is None


def test_a_dora_goes_to_transformers(tuned: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tuned("qwen3_vl")
    file = path / "adapter" / "adapter_config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "use_dora": True}), encoding="utf-8")
    model_dir = open_model_dir(path)
    assert str(vllm_refusal(model_dir)).startswith("its adapter is a DoRA")
    chosen: list[ModelDir] = []
    monkeypatch.setattr("mllm_embed.backends.transformers.start", lambda model_dir, **_: chosen.append(model_dir))
    load_backend("auto", model_dir)
    assert chosen == [model_dir]


@pytest.mark.parametrize(("family", "served"), [("qwen2_vl", True), ("llava", False)])
def test_an_adapter_on_the_tower_goes_where_it_is_run(family: str, served: bool, tuned: Callable[[str], Path]) -> None:
    path = tuned(family)
    file = path / "adapter" / "adapter_model.safetensors"
    tower = open_model_dir(path).family.tower
    save_file({f"base_model.model.{tower}.x": next(iter(load_file(file).values()))}, file)
    refusal = vllm_refusal(open_model_dir(path))
    assert refusal is None if served else "adapts the tower" in str(refusal)


@pytest.mark.parametrize("family", ["llava", "llava_next", "llava_onevision"])
def test_a_tower_under_other_names_goes_to_transformers(family: str, tiny_model: TinyModel, tmp_path: Path) -> None:
    """What transformers 5 has made from nothing, and saved."""
    path = Path(shutil.copytree(tiny_model(family), tmp_path / family))
    assert vllm_refusal(open_model_dir(path)) is None
    weights = {name.replace("vision_model.", ""): tensor for name, tensor in load_file(path / WEIGHTS).items()}
    save_file(weights, path / WEIGHTS, metadata={"format": "pt"})
    assert "looks for weights called vision_tower.vision_model." in str(vllm_refusal(open_model_dir(path)))
    load_base(path)
