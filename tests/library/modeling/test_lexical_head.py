from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from mllm_embed.errors import InvalidInput
from mllm_embed.lexical import WordTable
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.lexical_head import LexicalHead

STATE = np.random.default_rng(0).standard_normal(64, dtype=np.float32)


@pytest.fixture(scope="module")
def tied(tiny_model: Callable[[str], Path]) -> ModelDir:
    return open_model_dir(tiny_model("qwen3_vl"))


@pytest.fixture(scope="module")
def untied(tied: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> ModelDir:
    """The same model with a head of its own."""
    path = tmp_path_factory.mktemp("untied") / "model"
    shutil.copytree(tied.path, path)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = load_file(path / "model.safetensors")
    weights["lm_head.weight"] = torch.randn(config["text_config"]["vocab_size"], 64)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return open_model_dir(path)


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_its_words_are_those_of_the_loaded_models_head(kind: str, request: pytest.FixtureRequest) -> None:
    model_dir: ModelDir = request.getfixturevalue(kind)
    model: Any = AutoModelForImageTextToText.from_pretrained(str(model_dir.weights))
    with torch.inference_mode():
        logits = model.lm_head(torch.from_numpy(STATE)).numpy()
    expected = WordTable(model_dir.tokenizer_file).weigh(logits, 20)
    assert len(expected) == 20
    assert LexicalHead(model_dir, "float32").words(STATE, 20, None) == pytest.approx(expected, abs=1e-5)


def test_an_own_head_says_other_words(tied: ModelDir, untied: ModelDir) -> None:
    assert LexicalHead(tied, "float32").words(STATE, 20, None) != LexicalHead(untied, "float32").words(STATE, 20, None)


def test_it_computes_in_the_engines_precision(untied: ModelDir) -> None:
    exact, rounded = (LexicalHead(untied, precision).words(STATE, 1, None) for precision in ("float32", "bfloat16"))
    assert exact != rounded
    assert list(exact.values()) == pytest.approx(list(rounded.values()), rel=0.02)


@pytest.mark.parametrize("part", ["lm_head", "model.language_model.embed_tokens"])
def test_an_adapter_that_changes_the_head_is_refused(tied: ModelDir, tmp_path: Path, part: str) -> None:
    weights = {f"base_model.model.{part}.lora_A.weight": torch.zeros(1, 64)}
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InvalidInput, match="gives no lexical output on vLLM, since its adapter changes the language-"):
        LexicalHead(tied, "float32").words(STATE, 5, tmp_path)


def test_a_checkpoint_without_a_head_is_refused(untied: ModelDir, tmp_path: Path) -> None:
    shutil.copytree(untied.path, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match="its checkpoint holds no language-model head"):
        LexicalHead(open_model_dir(tmp_path / "model"), "float32").words(STATE, 5, None)
