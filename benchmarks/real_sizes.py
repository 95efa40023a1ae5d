"""Models of published sizes with random weights, and what a device can do: what the two benchmarks beside it share."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from mllm_embed.families import get_family
from mllm_embed.model_dir import ModelDir, open_model_dir, write_recipe
from mllm_embed.recipe import Recipe
from mllm_embed_training.scratch import ScratchModel, TextShape, VisionShape, create

SIZES: dict[str, ScratchModel] = {
    # Qwen/Qwen2-VL-2B-Instruct and Qwen/Qwen3-VL-2B-Instruct, from the config.json of each.
    "qwen2_vl-2b": ScratchModel(
        family="qwen2_vl",
        vocab_size=151_936,
        text=TextShape(hidden_size=1536, layers=28, heads=12, kv_heads=2, head_dim=128, intermediate_size=8960),
        vision=VisionShape(hidden_size=1280, layers=32, heads=16, intermediate_size=5120, patch_size=14),
    ),
    "qwen3_vl-2b": ScratchModel(
        family="qwen3_vl",
        vocab_size=151_936,
        text=TextShape(hidden_size=2048, layers=28, heads=16, kv_heads=8, head_dim=128, intermediate_size=6144),
        vision=VisionShape(hidden_size=1024, layers=24, heads=16, intermediate_size=4096, deepstack=(5, 11, 17)),
    ),
    "small": ScratchModel(
        vocab_size=512,
        text=TextShape(hidden_size=256, layers=8, heads=4, kv_heads=2, head_dim=64, intermediate_size=1024),
        vision=VisionShape(hidden_size=64, layers=3, heads=2, intermediate_size=128),
    ),
    "tiny": ScratchModel(
        vocab_size=512,
        text=TextShape(hidden_size=64, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate_size=128),
        vision=VisionShape(hidden_size=64, layers=3, heads=2, intermediate_size=128),
    ),
}
"""By name; `small` is what a CPU can train, `tiny` tries the code."""
PUBLISHED = [name for name, spec in SIZES.items() if spec.vocab_size > 100_000]
WORDS = ["a", "photo", "of", "the", "red", "round", "house", "and", "small", "green", "boat", "by", "night"]


def write_model(size: str, pixels: int, folder: Path) -> ModelDir:
    """Write a model directory with random weights, once, and open it.

    Args:
        size: one of `SIZES`.
        pixels: side of the pictures, which the model is to read at their own size.
        folder: where models lie.
    """
    path, spec = folder / f"{size}-{pixels}", SIZES[size]
    if not (path / "mllm_embed.json").exists():
        create(spec, [" ".join(WORDS), *(f" {word}" for word in WORDS)], path)
        family = get_family(spec.family)
        template = family.templates[family.default_template]
        recipe = Recipe(
            name=size,
            family=spec.family,
            template=template.name,
            template_version=template.version,
            dimensions=spec.text.hidden_size,
            min_pixels=pixels * pixels // 2,
            max_pixels=pixels * pixels,
            max_tokens=spec.text.max_tokens,
        )
        write_recipe(path, recipe)  # last: it says that the directory is complete
    return open_model_dir(path)


def picture(pixels: int, seed: int) -> PIL.Image.Image:
    """Draw a square of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return PIL.Image.fromarray(noise).resize((pixels, pixels))


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return how many floating-point operations per second the device does in a large matrix product."""
    side, repeats = (8192, 20) if device.type == "cuda" else (1024, 3)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    _multiply(left, right, 3)  # warms up
    return 2 * side**3 * repeats / _multiply(left, right, repeats)


def _multiply(left: torch.Tensor, right: torch.Tensor, count: int) -> float:
    """Return the seconds that some products take."""
    synchronise(left.device)
    started = time.perf_counter()
    for _ in range(count):
        left @ right
    synchronise(left.device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
