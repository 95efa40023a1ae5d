"""Fixtures that all tests share: tiny random models, pictures drawn by code, an embedder without a model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.embedder import Embedder
from mllm_embed.families import get_family
from tests import tiny_models

# Tiny products are fastest on one thread, many times so where other processes want the cores. Read when torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, except those by which the engines' packages complain about each other while imported."""
    for module in ("torch", "transformers", "peft", "vllm", "ray"):
        for category in ("DeprecationWarning", "FutureWarning"):
            config.addinivalue_line("filterwarnings", f"ignore::{category}:{module}[.]")


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait, on the event loop, until something that another thread does has happened."""

    async def wait(happened: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not happened():  # noqa: ASYNC110  # what other threads do sets no event of ours
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture(scope="session")
def draw() -> Callable[..., PIL.Image.Image]:
    """Draw a picture that differs for every seed."""

    def picture(seed: int, width: int = 96, height: int = 80) -> PIL.Image.Image:
        noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        return PIL.Image.fromarray(noise).resize((width, height), PIL.Image.Resampling.BICUBIC)

    return picture


@pytest.fixture
def fake() -> Iterator[Embedder]:
    """An embedder with hash vectors behind the real prompts, limits and finishing."""
    with fake_embedder() as embedder:
        yield embedder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the directory of a tiny random model of a family; each is made once per session."""
    made: dict[str, Path] = {}

    def model(family: str) -> Path:
        if family not in made:
            made[family] = tiny_models.make(family, tmp_path_factory.mktemp(family) / "tiny")
        return made[family]

    return model


@pytest.fixture(scope="session")
def tiny_adapter(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a model directory that holds a random LoRA adapter on top of `tiny_model`."""
    made: dict[str, Path] = {}

    def adapter(family: str) -> Path:
        if family not in made:
            made[family] = _make_adapter(tiny_model(family), family, tmp_path_factory.mktemp(family) / "tuned")
        return made[family]

    return adapter


def _make_adapter(base: Path, family: str, path: Path) -> Path:
    from dataclasses import replace

    import torch
    from peft import LoraConfig, get_peft_model

    from mllm_embed.model_dir import open_model_dir, write_recipe
    from mllm_embed.modeling.loading import load_base

    torch.manual_seed(1)
    known = get_family(family)
    layers = rf"{known.language_model}\..*\.({'|'.join(known.lora_targets)})"
    config = LoraConfig(r=4, lora_alpha=8, target_modules=layers)
    model = get_peft_model(load_base(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(path / "adapter"))
    write_recipe(path, replace(open_model_dir(base).recipe, name="tuned", base=str(base), adapter="adapter"))
    return path
