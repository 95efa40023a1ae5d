"""What an engine would not honour in a model, found from its recipe, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mllm_embed.adapters import adapts_tower, uses_dora
from mllm_embed.weight_files import weight_names

if TYPE_CHECKING:
    from mllm_embed.model_dir import ModelDir


def vllm_refusal(model_dir: ModelDir, *, adapters: bool = False) -> str | None:
    """Return why vLLM would not give this model's own vectors, as the end of a sentence, or None if it does.

    Args:
        model_dir: the opened model directory.
        adapters: whether LoRA adapters are to be run beside the model.
    """
    family, recipe = model_dir.family, model_dir.recipe
    if family.vllm.refused is not None:
        return family.vllm.refused
    if recipe.pooling != "last_token":
        return f"its pooling is {recipe.pooling!r}, and only the last token's is compared with vLLM's"
    if recipe.position_mode != family.position_modes[0]:
        return f"its position mode is {recipe.position_mode!r}, and vLLM numbers visual tokens in its own way"
    if recipe.attention != "causal":
        return f"its attention is {recipe.attention!r}, and vLLM's is causal"
    return _weights_refusal(model_dir) or _adapter_refusal(model_dir, adapters=adapters)


def _weights_refusal(model_dir: ModelDir) -> str | None:
    """Return that vLLM would not find the tower's weights, if their names are not those that it looks for."""
    part = model_dir.family.vllm.tower_weights
    if part is None or any(part in name for name in weight_names(model_dir.weights)):
        return None
    return f"it looks for weights called {part}*, as on the hub, and there are none"


def _adapter_refusal(model_dir: ModelDir, *, adapters: bool) -> str | None:
    """Return which adapter vLLM does not run, and what makes a model without one."""
    family, adapter = model_dir.family, model_dir.adapter
    if (adapters or adapter is not None) and not family.vllm.lora:
        return f"it runs no adapters on the family {family.name} (mllm-embed export merges one)"
    if adapter is not None and model_dir.recipe.soft_prompt:
        return "its adapter holds a soft prompt, and vLLM reads low-rank updates only (mllm-embed export merges it)"
    if adapter is not None and model_dir.recipe.quantization is not None:
        return "its adapter was trained over weights in 4 bits (mllm-embed export merges it onto these)"
    if adapter is not None and uses_dora(adapter):
        return "its adapter is a DoRA, which vLLM does not run (mllm-embed export merges one)"
    if adapter is not None and adapts_tower(adapter, family) and not family.vllm.tower_lora:
        return f"its adapter adapts the tower, which vLLM does not do on {family.name} (mllm-embed export merges one)"
    return None
