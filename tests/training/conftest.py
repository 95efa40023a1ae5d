"""A tiny random Qwen3-VL, made once per run, and a directory for the fake backend."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed_training.scratch import ScratchModel, TextShape, VisionShape, create
from tests.server_process import servable_fake

WORDS = ("a red circle on a white square", "two blue cats beside a tree", "Represent the picture for retrieval: 0123")

TINY = ScratchModel(
    vocab_size=400,
    text=TextShape(hidden_size=64, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate_size=96, max_tokens=256),
    vision=VisionShape(
        hidden_size=32, layers=2, heads=2, intermediate_size=64, deepstack=(0,), min_pixels=64 * 64, max_pixels=96 * 96
    ),
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products are faster on one thread, many times so where other processes compete for the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a plain LVLM with random weights."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    create(TINY, WORDS, path, seed=1)
    return path


@pytest.fixture(scope="session")
def tiny_dir(tiny_path: Path) -> ModelDir:
    """The same, opened."""
    return open_model_dir(tiny_path)


@pytest.fixture
def fake_dir(tmp_path: Path) -> Path:
    """A model directory that opens, for the fake backend: everything but real weights."""
    return servable_fake(tmp_path / "fake-model")
