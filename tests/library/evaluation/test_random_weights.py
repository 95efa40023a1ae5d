from pathlib import Path

import pytest
from safetensors.numpy import load_file

from mllm_embed.evaluation.random_weights import write_random_copy
from mllm_embed.model_dir import Recipe, open_model_dir, write_recipe
from mllm_embed_training.scratch import ScratchModel, TextShape, VisionShape, create

TINY = ScratchModel(
    vocab_size=320,
    text=TextShape(hidden_size=64, layers=1, heads=2, kv_heads=2, head_dim=32, intermediate_size=64, max_tokens=128),
    vision=VisionShape(hidden_size=32, layers=1, heads=1, intermediate_size=64, deepstack=()),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    create(TINY, ["a red circle"], path, seed=1)
    detected = open_model_dir(path).recipe
    write_recipe(path, Recipe(**{key: getattr(detected, key) for key in Recipe.__dataclass_fields__}))
    return path


def test_the_copy_has_the_same_shapes_and_recipe_but_other_weights(model: Path, tmp_path: Path) -> None:
    original = open_model_dir(model)
    write_random_copy(original, tmp_path / "copy")
    copy = open_model_dir(tmp_path / "copy")
    assert copy.recipe.name == "tiny (random)"
    assert (copy.recipe.template, copy.recipe.dimensions) == (original.recipe.template, original.recipe.dimensions)
    assert copy.tokenizer_file.read_bytes() == original.tokenizer_file.read_bytes()
    one, other = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / "copy"))
    assert {name: array.shape for name, array in one.items()} == {name: array.shape for name, array in other.items()}
    embedding = next(name for name in one if "embed_tokens" in name)
    assert abs(one[embedding] - other[embedding]).max() > 0


def test_the_same_seed_gives_the_same_weights(model: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_random_copy(open_model_dir(model), tmp_path / name)
    write_random_copy(open_model_dir(model), tmp_path / "c", seed=2)
    fingerprints = [open_model_dir(tmp_path / name).fingerprint for name in "abc"]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
