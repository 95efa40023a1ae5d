"""A soup's weights are the weighted mean of its models', or there is no soup."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mllm_embed.cli import main
from mllm_embed.errors import IncompatibleCheckpoint, ModelError
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.loading import load_base
from mllm_embed_training.export import export
from mllm_embed_training.export_proof import vectors
from mllm_embed_training.soup import soup
from tests.lora_files import write_lora


@pytest.fixture(scope="module")
def models(tiny_dir: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> list[ModelDir]:
    """Three models of one start, each moved its own way."""
    folder = tmp_path_factory.mktemp("models")
    return [moved(tiny_dir, folder / f"model-{seed}", seed) for seed in range(3)]


def moved(base: ModelDir, out: Path, seed: int) -> ModelDir:
    made = export(base, None, out, name=out.name, dtype="float32", matryoshka_dimensions=(16, 32)).model_dir
    generator = torch.Generator().manual_seed(seed)
    weights = {
        key: value + 0.02 * torch.randn(value.shape, generator=generator) for key, value in read(made.path).items()
    }
    save_file(weights, made.path / "model.safetensors", metadata={"format": "pt"})
    return open_model_dir(made.path)


def read(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_every_weight_is_the_mean(models: list[ModelDir], tmp_path: Path) -> None:
    done = soup(models, tmp_path / "out", name="mixed", shares=(1, 2, 5), dtype="float32")
    a, b, c = (read(model.path) for model in models)
    found = read(done.model_dir.path)
    assert found.keys() == a.keys()
    for key, weight in found.items():
        torch.testing.assert_close(weight, 0.125 * a[key] + 0.25 * b[key] + 0.625 * c[key], rtol=1e-5, atol=1e-6)
    assert done.shares == (0.125, 0.25, 0.625)


def test_equal_shares_unless_told(models: list[ModelDir], tmp_path: Path) -> None:
    done = soup(models[:2], tmp_path / "out", name="mixed", dtype="float32")
    key = next(key for key in read(models[0].path) if "q_proj" in key)
    expected = (read(models[0].path)[key] + read(models[1].path)[key]) / 2
    torch.testing.assert_close(read(done.model_dir.path)[key], expected)


def test_a_share_of_nothing_leaves_the_other_model(models: list[ModelDir], tmp_path: Path) -> None:
    done = soup(models[:2], tmp_path / "out", name="mixed", shares=(0, 3), dtype="float32")
    assert all(torch.equal(weight, read(models[1].path)[key]) for key, weight in read(done.model_dir.path).items())
    assert done.cosines[1] == pytest.approx(1, abs=1e-6)
    assert done.cosines[0] < 0.999


def test_the_directory_is_complete(models: list[ModelDir], tmp_path: Path) -> None:
    done = soup(models[:2], tmp_path / "out", name="mixed")
    recipe = done.model_dir.recipe
    assert (recipe.name, recipe.matryoshka_dimensions, recipe.adapter) == ("mixed", (16, 32), None)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["matryoshka_dimensions"], config["dtype"]) == ([16, 32, 64], "bfloat16")
    assert {file.name for file in models[0].path.iterdir()} == {file.name for file in (tmp_path / "out").iterdir()}
    alone = [vectors(load_base(model.weights).eval(), model) for model in models[:2]]
    mixed = vectors(load_base(done.model_dir.weights).eval(), done.model_dir)
    for part, cosine in zip(alone, done.cosines, strict=True):
        assert float((part * mixed).sum(dim=-1).min()) == pytest.approx(cosine, abs=1e-3)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((1,), "2 models needs 2 shares, but was given 1"),
        ((1, -0.5), r"not negative and not all 0, but are \[1, -0.5\]"),
        ((0, 0), "not all 0"),
        ((1, float("nan")), "must be finite"),
        ((1, float("inf")), "must be finite"),
    ],
)
def test_shares_that_do_not_fit(
    models: list[ModelDir], tmp_path: Path, shares: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        soup(models[:2], tmp_path / "out", name="mixed", shares=shares)
    assert not list(tmp_path.iterdir())


def test_one_model_is_no_soup(models: list[ModelDir], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="at least two models, but was given 1"):
        soup(models[:1], tmp_path / "out", name="mixed")


def copied(model: ModelDir, out: Path) -> ModelDir:
    shutil.copytree(model.path, out)
    return open_model_dir(out)


def refused(models: list[ModelDir], tmp_path: Path, message: str) -> None:
    with pytest.raises(IncompatibleCheckpoint, match=message):
        soup(models, tmp_path / "soup", name="mixed")
    assert not list(tmp_path.glob("*soup*")), "something was left behind"


def test_another_recipe_is_refused(models: list[ModelDir], tmp_path: Path) -> None:
    other = models[1].with_recipe(min_pixels=32 * 32)
    refused([models[0], other], tmp_path, r"must have one recipe, but differ in \['min_pixels'\]")


def test_another_tokenizer_is_refused(models: list[ModelDir], tmp_path: Path) -> None:
    other = copied(models[1], tmp_path / "other")
    other.tokenizer_file.write_text(other.tokenizer_file.read_text() + "\n")
    refused([models[0], other], tmp_path, "must have one tokenizer")


def test_weights_of_another_shape_are_refused(models: list[ModelDir], tmp_path: Path) -> None:
    other = copied(models[1], tmp_path / "other")
    config = json.loads((other.path / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] -= 1
    (other.path / "config.json").write_text(json.dumps(config))
    last = f".layers.{config['text_config']['num_hidden_layers']}."
    kept = {key: value for key, value in read(other.path).items() if "language_model" not in key or last not in key}
    save_file(kept, other.path / "model.safetensors", metadata={"format": "pt"})
    refused([models[0], open_model_dir(other.path)], tmp_path, "must have weights of the same names and shapes, but")


def test_an_unmerged_adapter_is_refused(tiny_dir: ModelDir, models: list[ModelDir], tmp_path: Path) -> None:
    adapter = write_lora(tmp_path / "adapter", tiny_dir.weights, seed=0)
    other = ModelDir(tmp_path, tiny_dir.weights, adapter, models[0].recipe)
    refused([models[0], other], tmp_path, "holds an adapter, .* merge it first")


def test_the_command_tells_how_far_each_model_is(
    models: list[ModelDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(model.path) for model in models[:2]]
    with pytest.raises(SystemExit) as stopped:
        main(["soup", *paths, "--share", "0.3", "--share", "0.1", "--out", str(tmp_path / "mine")])
    assert stopped.value.code in (0, None)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"0.750 of {paths[0]}",
        f"0.250 of {paths[1]}",
        str(tmp_path / "mine"),
    ]
    assert open_model_dir(tmp_path / "mine").recipe.name == "mine"


def test_a_missing_model_is_named(models: list[ModelDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["soup", str(models[0].path), str(tmp_path / "absent"), "--out", str(tmp_path / "mine")])
    assert stopped.value.code == 2
    assert str(tmp_path / "absent") in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
