"""The random-weights baseline: the same architecture, tokenizer and recipe, nothing learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mllm_embed.model_dir import ModelDir, write_recipe
from mllm_embed.weight_files import copy_companions


def write_random_copy(model: ModelDir, target: Path, *, seed: int = 0) -> None:
    """Write a model directory like `model` with newly initialised weights and no adapter.

    Args:
        model: the model whose architecture is copied.
        target: directory to write, made if absent.
        seed: of the weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForMultimodalLM

    from mllm_embed.modeling import torch_compat

    torch_compat.apply()
    target.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.from_pretrained(str(model.weights), local_files_only=True)
    torch.manual_seed(seed)
    random = AutoModelForMultimodalLM.from_config(config, dtype=torch.float32)
    random.save_pretrained(target)
    copy_companions(model.weights, target)
    recipe = replace(model.recipe, name=f"{model.recipe.name} (random)", base=None, adapter=None, adapter_sha256=None)
    write_recipe(target, recipe)
