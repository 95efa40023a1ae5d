"""What an engine would not honour in a model, found from its recipe, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    if (adapters or model_dir.adapter is not None) and not family.vllm.lora:
        return f"it runs no adapters on the family {family.name} (mllm-embed export merges one)"
    return None
