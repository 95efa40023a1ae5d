"""MoCa's first stage: what is hidden, what is learned of it, and a model that sees both ways wherever it is opened."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from mllm_embed.backends.support import vllm_refusal
from mllm_embed.model_dir import open_model_dir
from mllm_embed.modeling.loading import inner_model, load_base, load_model, load_without_adapter
from mllm_embed.weight_files import weight_names
from mllm_embed_training import toy_tasks
from mllm_embed_training.build import build_stage, save_result
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.export import export
from mllm_embed_training.export_proof import least_cosine, vectors
from mllm_embed_training.plan import Draw
from mllm_embed_training.reconstruct import HiddenChunk, ReconstructStage
from mllm_embed_training.trainer import train


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_tasks, "COUNT", 12)


def recipe(start: Path, run_dir: Path, *, steps: int = 2, **changes: Any) -> TrainConfig:
    raw: dict[str, Any] = {
        "stage": "reconstruct",
        "run_dir": str(run_dir),
        "model": {"path": str(start), "template": "plain", "mask": "bidirectional", "pooling": "mean"},
        "data": {"tasks": {"toy-t2i": 1}, "batch_size": 6, "group_size": 6, "chunk_size": 4},
        "optim": {"steps": steps, "lr": 0.003, "warmup_steps": 1},
        "bf16": False,
    }
    return TrainConfig.model_validate({**raw, **changes})


def build(config: TrainConfig) -> ReconstructStage:
    stage, _ = build_stage(config, Path(config.run_dir))
    assert isinstance(stage, ReconstructStage)
    return stage


def batch(stage: ReconstructStage, rows: int = 6) -> list[HiddenChunk]:
    return stage.collate([stage.prepare(Draw("toy-t2i", row, (0, 0, row))) for row in range(rows)])


def test_words_and_patches_are_hidden_and_nothing_else(tiny_path: Path, tmp_path: Path) -> None:
    stage = build(recipe(tiny_path, tmp_path))
    chunks = batch(stage)
    assert [len(chunk.words) for chunk in chunks] == [4, 2]
    shown = [stage._encoder.chunks([stage.prepare(Draw("toy-t2i", 0, (0, 0, row)))[0]])[0] for row in range(1)]
    assert "pixel_values" in shown[0], "a pair's positive is a picture"
    holes = patches = words = 0
    for chunk in chunks:
        ids, hidden = chunk.inputs["input_ids"], chunk.words != -100
        assert (ids[hidden] == stage._mask_id).all()
        assert not torch.isin(chunk.words[hidden], stage._control).any()
        assert not (hidden & (chunk.inputs["attention_mask"] == 0)).any()
        assert not (hidden & chunk.visual).any()
        pixels = chunk.inputs["pixel_values"]
        assert torch.equal(pixels[~chunk.hidden], chunk.patches[~chunk.hidden])
        assert not torch.isclose(pixels[chunk.hidden], chunk.patches[chunk.hidden]).all(dim=1).any()
        assert len(pixels) == 4 * int(chunk.visual.sum())
        holes, words = holes + int(hidden.sum()), words + int((chunk.inputs["attention_mask"] & ~chunk.visual).sum())
        patches += int(chunk.hidden.sum())
    assert 0.2 < holes / words < 0.5
    assert 0.4 < patches / sum(len(chunk.hidden) for chunk in chunks) < 0.6


def test_the_same_draws_have_the_same_holes(tiny_path: Path, tmp_path: Path) -> None:
    stage = build(recipe(tiny_path, tmp_path))
    for one, other in zip(batch(stage), batch(stage), strict=True):
        assert torch.equal(one.words, other.words)
        assert torch.equal(one.inputs["pixel_values"], other.inputs["pixel_values"])


def test_the_loss_is_the_mean_over_all_holes_of_the_batch(tiny_path: Path, tmp_path: Path) -> None:
    stage = build(recipe(tiny_path, tmp_path, reconstruct={"patch_weight": 0.7}))
    told, painted = [], []
    for chunk in batch(stage):
        hidden = inner_model(stage.model)(**chunk.inputs, use_cache=False).last_hidden_state
        logits = stage._vocabulary(hidden)
        told += list(F.cross_entropy(logits.flatten(0, 1), chunk.words.flatten(), reduction="none"))
        wanted = (chunk.words != -100).flatten()
        told = [*told[: len(told) - len(wanted)], *(t for t, w in zip(told[-len(wanted) :], wanted, strict=True) if w)]
        pixels = stage._decoder(hidden, chunk.inputs["attention_mask"], chunk.visual)
        painted += list((pixels - chunk.patches).square().mean(dim=1)[chunk.hidden])
    metrics = stage.backward(batch(stage))
    expected = torch.stack(told).mean() + 0.7 * torch.stack(painted).mean()
    assert metrics["loss"] == pytest.approx(float(expected.detach()), rel=1e-4)
    assert metrics["patch_loss"] == pytest.approx(float(torch.stack(painted).mean().detach()), rel=1e-4)
    assert all(p.grad is not None and p.grad.norm() > 0 for p in stage._decoder.parameters() if p.ndim > 1)


def test_both_parts_are_learned(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(tiny_path, tmp_path, steps=30)
    assert train(config, build(config), tmp_path, start="tiny")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("word_loss", "patch_loss"):
        assert sum(row[name] for row in rows[-5:]) < 0.8 * sum(row[name] for row in rows[:5]), name


def test_what_follows_reaches_what_comes_before(tiny_path: Path, tmp_path: Path) -> None:
    """The point of the mask: a hidden word is told by the picture that comes after it too."""
    stage = build(recipe(tiny_path, tmp_path))
    (chunk, *_) = batch(stage)

    def first_state() -> torch.Tensor:
        with torch.no_grad():
            state: torch.Tensor = inner_model(stage.model)(**chunk.inputs, use_cache=False).last_hidden_state[:, 0]
        return state

    before = first_state()
    chunk.inputs["pixel_values"] += 1
    assert not torch.allclose(first_state(), before)


def test_the_result_lacks_the_decoder_and_sees_both_ways_where_it_is_opened(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(tiny_path, tmp_path / "run")
    stage, start = build_stage(config, tmp_path / "run")
    assert train(config, stage, tmp_path / "run", start="tiny")
    trained = vectors(stage.model.eval(), start)
    save_result(stage, start, config, tmp_path / "run" / "model")
    result = open_model_dir(str(tmp_path / "run" / "model"))
    assert (result.recipe.attention, result.recipe.pooling) == ("bidirectional", "mean")
    assert weight_names(result.path) == weight_names(tiny_path)
    assert least_cosine(vectors(load_model(result), result), trained) > 0.999999
    assert least_cosine(vectors(load_base(result.weights).eval(), result), trained) < 0.9999, "causal is another model"

    export(result, None, tmp_path / "out", name="both", dtype="float32")
    served = open_model_dir(str(tmp_path / "out"))
    assert least_cosine(vectors(load_model(served), served), trained) > 0.999999
    pooling = json.loads((tmp_path / "out" / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"]
    assert not pooling["pooling_mode_lasttoken"]
    assert vllm_refusal(served) is not None


def test_an_adapter_of_such_a_model_is_proved_under_its_own_mask(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(
        tiny_path, tmp_path / "run", stage="contrastive", lora={"r": 4, "alpha": 8}, optim={"steps": 2, "lr": 0.01}
    )
    stage, start = build_stage(config, tmp_path / "run")
    assert train(config, stage, tmp_path / "run", start="tiny")
    trained = vectors(stage.model.eval(), start)
    save_result(stage, start, config, tmp_path / "run" / "model")
    done = export(open_model_dir(str(tmp_path / "run" / "model")), None, tmp_path / "out", name="x", dtype="float32")
    assert least_cosine(vectors(load_model(done.model_dir), done.model_dir), trained) > 0.999999
    without = vectors(load_without_adapter(open_model_dir(str(tmp_path / "run" / "model"))).eval(), start)
    moved = torch.linalg.vector_norm(trained - without, dim=1).max()
    assert done.proof.adapter_effect == pytest.approx(float(moved), rel=1e-3)


def test_one_way_attention_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"the reconstruct stage needs model\.mask: bidirectional"):
        recipe(tiny_path, tmp_path, model={"path": str(tiny_path)})
