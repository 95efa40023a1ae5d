"""What is trained, in which precision, with which memory: the model section and the adapter of a recipe."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.families import get_family
from mllm_embed.model_dir import open_model_dir
from mllm_embed.modeling.loading import attach_adapter, load_base, load_model
from mllm_embed_training import toy_tasks
from mllm_embed_training.build import build_stage, part_of, save_result
from mllm_embed_training.config import ConfigError, TrainConfig
from mllm_embed_training.export import export
from mllm_embed_training.export_proof import least_cosine, vectors
from mllm_embed_training.plan import Draw
from mllm_embed_training.stage import Stage
from mllm_embed_training.trainer import train, trainable


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_tasks, "COUNT", 12)


def recipe(model: Path | str, run_dir: Path, *, lora: dict[str, Any] | None = None, **section: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "stage": "contrastive",
            "run_dir": str(run_dir),
            "model": {"path": str(model), **section},
            "lora": lora,
            "loss": {"info_nce": {"temperature": 0.1}},
            "data": {"tasks": {"toy-edit": 1}, "batch_size": 4, "group_size": 4, "chunk_size": 2},
            "optim": {"steps": 3, "lr": 0.01, "warmup_steps": 1},
            "bf16": False,
        }
    )


def gradients(stage: Stage) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(stage):  # with lora_B at zero, lora_A would have no gradient
            parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.05)
    stage.model.train()
    torch.manual_seed(5)
    stage.backward(stage.collate([stage.prepare(Draw("toy-edit", row, (0, 0, row))) for row in range(4)]))
    return {name: p.grad for name, p in stage.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 8, "dropout": 0.1, "tower": True}], ids=["all", "lora"])
def test_gradient_checkpointing_changes_no_gradient(
    lora: dict[str, Any] | None, tiny_path: Path, tmp_path: Path
) -> None:
    kept, _ = build_stage(recipe(tiny_path, tmp_path, lora=lora), tmp_path)
    again, _ = build_stage(recipe(tiny_path, tmp_path, lora=lora, gradient_checkpointing=True), tmp_path)
    assert any(getattr(module, "gradient_checkpointing", False) for module in again.model.modules())
    expected, found = gradients(kept), gradients(again)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert gradient.norm() > 0, name
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def part_of_qwen(name: str) -> str:
    if not name.startswith("model.visual"):
        return "language"
    return "projector" if "merger" in name else "tower"


@pytest.mark.parametrize("frozen", [["tower"], ["tower", "projector"], ["language"]], ids="+".join)
def test_frozen_parts_stay_as_they_are(frozen: list[str], tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(tiny_path, tmp_path, frozen=frozen)
    stage, _ = build_stage(config, tmp_path)
    before = {name: p.detach().clone() for name, p in stage.model.named_parameters()}
    assert train(config, stage, tmp_path, start="tiny")
    for name, parameter in stage.model.named_parameters():
        if part_of_qwen(name) in frozen:
            assert torch.equal(parameter, before[name]), name
    moved = {part_of_qwen(name) for name, p in stage.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"tower", "projector", "language"} - set(frozen)


def test_pictures_are_seen_as_large_as_the_recipe_asks(tiny_path: Path, tmp_path: Path) -> None:
    seen = {}
    for limit in (None, 64 * 64):  # the start's own is 96 x 96
        run_dir = tmp_path / str(limit)
        config = recipe(tiny_path, run_dir, max_pixels=limit)
        stage, start = build_stage(config, run_dir)
        batch = stage.collate([stage.prepare(Draw("toy-edit", row, (0, 0, row))) for row in range(2)])
        seen[limit] = stage.backward(batch)["tokens"]
        assert train(config, stage, run_dir, start="tiny")
        save_result(stage, start, config, run_dir / "model")
        exported = export(open_model_dir(run_dir / "model"), None, run_dir / "out", name="large", dtype="float32")
        assert exported.model_dir.recipe.max_pixels == start.recipe.max_pixels == (limit or 96 * 96)
        assert exported.model_dir.pixels.visual_tokens(300, 300) == (9 if limit is None else 4)
        size = json.loads((run_dir / "out" / "preprocessor_config.json").read_text())["size"]
        assert size["longest_edge"] == start.recipe.max_pixels, "other engines would see another size"
    assert seen[None] - seen[64 * 64] == 5 * 6, "two queries, two answers and two hard negatives: a picture each"


def test_pictures_smaller_than_the_model_takes_are_refused(tiny_path: Path, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="min_pixels must be at most max_pixels 1024, but is 4096"):
        build_stage(recipe(tiny_path, tmp_path, max_pixels=32 * 32), tmp_path)


def test_a_family_of_fixed_sizes_takes_no_other(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="its processor has fixed sizes"):
        build_stage(recipe(tiny_model("llava"), tmp_path, max_pixels=64 * 64), tmp_path)


@pytest.mark.parametrize(
    ("family", "name", "part"),
    [
        ("llava", "model.vision_tower.encoder.layers.0.mlp.fc1.weight", "tower"),
        ("llava", "model.multi_modal_projector.linear_1.weight", "projector"),
        ("llava", "model.language_model.layers.0.mlp.up_proj.weight", "language"),
        (
            "phi4_multimodal",
            "model.embed_tokens_extend.image_embed.img_processor.embeddings.patch_embedding.bias",
            "tower",
        ),
        ("phi4_multimodal", "model.embed_tokens_extend.image_embed.img_projection_up.weight", "projector"),
        ("phi4_multimodal", "model.layers.0.mlp.down_proj.weight", "language"),
        ("idefics3", "model.connector.modality_projection.proj.weight", "projector"),
        ("qwen2_vl", "model.visual.merger.mlp.0.weight", "projector"),
        ("qwen3_vl", "model.visual.deepstack_merger_list.0.norm.bias", "projector"),
        ("qwen3_vl", "lm_head.weight", "language"),
    ],
)
def test_every_family_has_its_parts(family: str, name: str, part: str) -> None:
    assert part_of(name, get_family(family)) == part


def weight_types(model: nn.Module) -> set[str]:
    return {type(parameter).__name__ for parameter in model.parameters()}


def test_qlora_trains_an_adapter_over_weights_in_four_bits(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(tiny_path, tmp_path / "run", lora={"r": 4, "alpha": 8}, quantization="nf4")
    stage, start = build_stage(config, tmp_path / "run")
    assert "Params4bit" in weight_types(stage.model)
    assert {name.rsplit(".", 3)[1] for name, p in stage.model.named_parameters() if p.requires_grad} == {
        "lora_A",
        "lora_B",
    }
    assert train(config, stage, tmp_path / "run", start="tiny")
    trained = vectors(stage.model.eval(), start)
    save_result(stage, start, config, tmp_path / "run" / "model")
    result = open_model_dir(str(tmp_path / "run" / "model"))
    done = export(result, None, tmp_path / "out", name="q", dtype="float32")
    assert done.proof.adapter_effect is not None
    assert done.proof.adapter_effect > 1e-4
    assert done.proof.merged_cosine > 0.99999, "merged onto other weights than those of training"

    # bitsandbytes computes in bfloat16 while training, so the trained vectors are that coarse.
    served = vectors(load_model(open_model_dir(str(tmp_path / "out"))), start)
    unmerged = vectors(load_model(result), start)
    on_others = vectors(attach_adapter(load_base(start.weights), result.path).eval(), start)
    assert least_cosine(served, unmerged) > 0.999999
    assert 1 - least_cosine(served, trained) < 0.02 * (1 - least_cosine(on_others, trained))
    assert open_model_dir(str(tmp_path / "out")).recipe.quantization is None


def test_measuring_leaves_weights_in_four_bits_as_they_are(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(tiny_path, tmp_path, lora={"r": 4, "alpha": 8, "dropout": 0}, quantization="nf4")
    stage, start = build_stage(config, tmp_path)
    before = {name: p.detach().clone() for name, p in stage.model.named_parameters()}
    vectors(stage.model.eval(), start)
    assert all(torch.equal(before[name], p) for name, p in stage.model.named_parameters())


def test_dora_learns_magnitudes_and_merges(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(tiny_path, tmp_path / "run", lora={"r": 4, "alpha": 8, "dora": True})
    stage, start = build_stage(config, tmp_path / "run")
    assert any("lora_magnitude_vector" in name for name, p in stage.model.named_parameters() if p.requires_grad)
    assert train(config, stage, tmp_path / "run", start="tiny")
    save_result(stage, start, config, tmp_path / "run" / "model")
    done = export(open_model_dir(str(tmp_path / "run" / "model")), None, tmp_path / "out", name="d", dtype="float32")
    assert done.proof.merged_cosine > 0.9999


def test_an_adapter_finds_its_start_where_the_folder_of_runs_is_a_link(tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "disk" / "runs").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "other" / "disk" / "runs")
    run = tmp_path / "runs" / "one"
    config = recipe(tiny_path, run, lora={"r": 4, "alpha": 8})
    stage, start = build_stage(config, run)
    save_result(stage, start, config, run / "model")
    assert open_model_dir(str(run / "model")).weights.samefile(start.weights)


def test_a_start_in_several_weight_files_trains_to_a_model_in_one_with_all_that_lies_beside_them(
    tiny_path: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    shutil.copytree(tiny_path, start, ignore=shutil.ignore_patterns("*.safetensors"))
    whole: Any = load_base(tiny_path)
    whole.save_pretrained(start, max_shard_size="100KB")
    (start / "chat_template.jinja").write_text("{{ messages }}")
    assert (start / "model.safetensors.index.json").exists()
    config = recipe(start, tmp_path / "run")
    stage, opened = build_stage(config, tmp_path / "run")
    save_result(stage, opened, config, tmp_path / "run" / "model")
    result = open_model_dir(str(tmp_path / "run" / "model"))  # which reads the headers of all weight files
    assert least_cosine(vectors(load_model(result), result), vectors(load_model(opened), opened)) > 0.999999
    assert (result.path / "chat_template.jinja").read_text() == "{{ messages }}"


def test_an_adapter_is_no_start(tiny_path: Path, tmp_path: Path) -> None:
    config = recipe(tiny_path, tmp_path / "run", lora={"r": 4, "alpha": 8})
    stage, start = build_stage(config, tmp_path / "run")
    assert train(config, stage, tmp_path / "run", start="tiny")
    save_result(stage, start, config, tmp_path / "run" / "model")
    again = recipe(tmp_path / "run" / "model", tmp_path / "second", lora={"r": 4, "alpha": 8})
    with pytest.raises(ConfigError, match=r"model\.path must be a whole model, but .* is an adapter: merge it with"):
        build_stage(again, tmp_path / "second")


@pytest.mark.parametrize(
    ("section", "lora", "message"),
    [
        ({"quantization": "nf4"}, None, "quantization needs a lora section"),
        ({"shard": True}, None, "model.shard spreads frozen weights: it needs a lora section"),
        ({"shard": True, "quantization": "nf4"}, {"r": 4}, "and no model.quantization"),
        ({"frozen": ["tower"]}, {"r": 4}, "frozen is for training without a lora section"),
        ({"frozen": ["head"]}, None, "Input should be 'tower', 'projector' or 'language'"),
    ],
)
def test_options_that_contradict_are_refused(
    section: dict[str, Any], lora: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe("somewhere", tmp_path, lora=lora, **section)
