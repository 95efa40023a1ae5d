"""vLLM takes adapters of transformers 4 to the places of those of transformers 5: what it does not know it drops."""

from __future__ import annotations

import importlib

import pytest

from mllm_embed.families import FAMILIES, Family
from mllm_embed.modeling import torch_compat
from tests.tiny_models import file_of

SERVED = [family for family in FAMILIES.values() if family.vllm.refused is None and family.vllm.lora]


@pytest.mark.parametrize("family", SERVED, ids=lambda family: family.name)
def test_both_names_lead_to_the_same_place(family: Family) -> None:
    pytest.importorskip("vllm")
    torch_compat.apply()
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    from vllm.lora.utils import parse_fine_tuned_lora_name
    from vllm.model_executor.models.registry import _MULTIMODAL_MODELS

    module, name = _MULTIMODAL_MODELS[MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[family.name]]
    model = getattr(importlib.import_module(f"vllm.model_executor.models.{module}"), name)
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    old_names = getattr(file_of(family.name), "TRANSFORMERS_4", {})
    parts = [family.language_model, *([family.tower] if family.vllm.tower_lora else [])]
    for part in parts:
        ending = "layers.0.proj.lora_A.weight"
        new = f"base_model.model.{part}.{ending}"
        old = f"base_model.model.{old_names.get(part + '.', part + '.')}{ending}"
        places = [parse_fine_tuned_lora_name(key, mapper)[0] for key in (old, new)]
        assert places[0] == places[1], places
        assert not places[0].startswith("model.language_model"), places
