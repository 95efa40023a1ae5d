"""Fixtures for the commands: a model directory that the fake backend serves, and the command line as a function."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import mllm_embed.backends.fake
from mllm_embed import cli


@pytest.fixture
def fake_dir(tmp_path: Path) -> Path:
    """A model directory that opens, for the fake backend: everything but real weights."""
    folder = tmp_path / "fake-model"
    shutil.copytree(Path(mllm_embed.backends.fake.__file__).parent / "_fake_model", folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] = {"hidden_size": 64, "max_position_embeddings": 8192}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"weight": np.zeros(1, dtype=np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def command() -> Callable[..., int]:
    """Run `mllm-embed` with arguments and return its exit code."""

    def run(*arguments: str | Path) -> int:
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return 0

    return run
