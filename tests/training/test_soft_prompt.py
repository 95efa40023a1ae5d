"""A soft prompt is a row of control tokens whose embeddings are learned, so that every engine serves it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mllm_embed.backends.support import vllm_refusal
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.loading import load_base, load_model
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput
from mllm_embed_training import toy_tasks
from mllm_embed_training.build import build_stage, save_result
from mllm_embed_training.config import ConfigError, TrainConfig
from mllm_embed_training.export import export
from mllm_embed_training.export_proof import least_cosine, vectors
from mllm_embed_training.start import soft_token_ids, start_directory
from mllm_embed_training.trainer import train, trainable

COUNT = 3


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_tasks, "COUNT", 12)


def recipe(model: Path, run_dir: Path, *, soft_prompt: int = COUNT, **changes: Any) -> TrainConfig:
    raw = {
        "stage": "contrastive",
        "run_dir": str(run_dir),
        "model": {"path": str(model), "template": "plain", "soft_prompt": soft_prompt},
        "lora": {"r": 2, "alpha": 4, "dropout": 0},
        "data": {"tasks": {"toy-t2i": 1}, "batch_size": 4, "group_size": 4, "chunk_size": 2},
        "optim": {"steps": 3, "lr": 0.03, "warmup_steps": 1},
        "bf16": False,
    }
    return TrainConfig.model_validate({**raw, **changes})


@pytest.fixture
def start(tiny_path: Path, tmp_path: Path) -> ModelDir:
    return start_directory(recipe(tiny_path, tmp_path), tmp_path, {})


def test_prompts_begin_with_it_and_nobody_can_type_it(start: ModelDir) -> None:
    renderer = PromptRenderer(start.tokenizer_file, start.family, start.template)
    ids = soft_token_ids(start, COUNT)
    prompt = renderer.render(EmbedInput.of("<|soft_0|> a cat"), "Find.", [])
    assert list(prompt.token_ids[:COUNT]) == ids
    assert not set(ids) & set(prompt.token_ids[COUNT:])


@pytest.mark.parametrize("count", [COUNT, 80])
def test_the_copy_is_the_model_but_for_the_new_rows(count: int, tiny_path: Path, tmp_path: Path) -> None:
    """The tiny model has 73 rows of its embedding to spare, as Qwen's have hundreds; for 80 it must grow."""
    start = start_directory(recipe(tiny_path, tmp_path, soft_prompt=count), tmp_path, {})
    plain: Any = load_base(tiny_path)
    softened: Any = load_base(start.weights)
    old, new = plain.get_input_embeddings().weight, softened.get_input_embeddings().weight
    ids = soft_token_ids(start, count)
    assert len(new) == max(len(old), max(ids) + 1)
    assert all(any(torch.equal(row, word) for word in old[: ids[0]]) for row in new[ids]), "a row begins as a word"
    kept = [row for row in range(len(old)) if row not in ids]
    assert torch.equal(new[kept], old[kept])
    others = dict(plain.named_parameters())
    for name, parameter in softened.named_parameters():
        if "embed_tokens" not in name:
            assert torch.equal(parameter, others[name]), name


def test_it_is_trained_saved_merged_and_served_with_the_same_vectors(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(tiny_path, tmp_path / "run")
    stage, start = build_stage(config, tmp_path / "run")
    soft = [p for name, p in stage.model.named_parameters() if "trainable_tokens" in name]
    assert [tuple(p.shape) for p in soft] == [(COUNT, start.recipe.dimensions)]
    assert any(p is soft[0] for p in trainable(stage))
    before = soft[0].detach().clone()
    assert train(config, stage, tmp_path / "run", start="tiny")
    assert not torch.equal(soft[0], before)

    trained = vectors(stage.model.eval(), start)
    save_result(stage, start, config, tmp_path / "run" / "model")
    result = open_model_dir(str(tmp_path / "run" / "model"))
    assert least_cosine(vectors(load_model(result), result), trained) > 0.999999
    done = export(result, None, tmp_path / "out", name="soft", dtype="float32")
    assert done.proof.merged_cosine > 0.999999
    served = open_model_dir(str(tmp_path / "out"))
    assert served.recipe.soft_prompt == COUNT
    assert least_cosine(vectors(load_model(served), served), trained) > 0.999999
    assert vllm_refusal(served) is None


def test_vllm_runs_it_merged_only(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(tiny_path, tmp_path / "run")
    stage, start = build_stage(config, tmp_path / "run")
    assert train(config, stage, tmp_path / "run", start="tiny")
    save_result(stage, start, config, tmp_path / "run" / "model")
    assert "mllm-embed export merges" in str(vllm_refusal(open_model_dir(str(tmp_path / "run" / "model"))))


def test_a_later_stage_goes_on_with_it(start: ModelDir, tmp_path: Path) -> None:
    again = start_directory(recipe(start.path, tmp_path / "second"), tmp_path / "second", {})
    assert again.weights == start.weights
    kept = start_directory(recipe(start.path, tmp_path / "third", soft_prompt=0), tmp_path / "third", {})
    assert kept.recipe.soft_prompt == COUNT
    with pytest.raises(ConfigError, match=r"model\.soft_prompt must be 3, which .* has already, or 0, but is 5"):
        start_directory(recipe(start.path, tmp_path / "fourth", soft_prompt=5), tmp_path / "fourth", {})
