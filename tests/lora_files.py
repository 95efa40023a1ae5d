"""LoRA adapters as PEFT writes them, made without it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

TARGETS = ("q_proj", "v_proj")
RANK = 4


def write_lora(folder: Path, weights: Path, seed: int, *, scale: float = 0.2) -> Path:
    """Write an adapter on the attention of a model's language model, random numbers by a seed, and return its folder.

    Args:
        folder: made anew.
        weights: directory of the model that it fits.
        seed: another one gives another adapter.
        scale: how strong it is; 0 changes nothing.
    """
    draw = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]] = {}
    with safe_open(weights / "model.safetensors", framework="numpy") as stored:
        for key in stored.keys():  # noqa: SIM118  # not a mapping
            layer = key.removesuffix(".weight")
            if "language_model" in key and layer.endswith(TARGETS):
                rows, columns = stored.get_slice(key).get_shape()
                for side, shape in (("lora_A", (RANK, columns)), ("lora_B", (rows, RANK))):
                    numbers = draw.standard_normal(shape, dtype=np.float32) * scale
                    tensors[f"base_model.model.{layer}.{side}.weight"] = numbers
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": list(TARGETS)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
