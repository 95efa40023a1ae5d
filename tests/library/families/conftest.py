"""What the tests of families share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.prompts import PromptRenderer


@pytest.fixture(scope="session")
def own_processor() -> Callable[[Path], Any]:
    """Open transformers' processor of a model."""

    def open_processor(path: Path) -> Any:
        from mllm_embed.modeling import torch_compat

        torch_compat.apply()
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(str(path))

    return open_processor


@pytest.fixture(scope="session")
def renderer() -> Callable[[ModelDir], PromptRenderer]:
    """Make the renderer of a model."""
    return lambda model_dir: PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)


@pytest.fixture
def refused_with(tiny_model: Callable[[str], Path], tmp_path: Path) -> Callable[..., None]:
    """Check that a family's tiny model under a changed configuration is refused with a sentence."""

    def check(family: str, changes: dict[str, Any], says: str) -> None:
        model = Path(shutil.copytree(tiny_model(family), tmp_path / "model"))
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        (model / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
        with pytest.raises(IncompatibleCheckpoint, match=says):
            open_model_dir(model)

    return check
