from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mllm_embed import model_dir
from mllm_embed.errors import IncompatibleCheckpoint, ModelError, ModelNotFound, UnknownFamily
from mllm_embed.families.pictures import PixelRule
from mllm_embed.model_dir import MAX_DETECTED_TOKENS, RECIPE_FILE, Recipe, file_sha256, open_model_dir, write_recipe

pytestmark = pytest.mark.fast

RECIPE = Recipe(
    name="toy",
    family="qwen3_vl",
    template="plain",
    dimensions=64,
    matryoshka_dimensions=(16, 32),
    min_pixels=1_024,
    max_pixels=4_096,
    max_tokens=128,
)
CONFIG: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "text_config": {"hidden_size": 64, "max_position_embeddings": 256},
}
PROCESSOR: dict[str, Any] = {
    "patch_size": 16,
    "merge_size": 2,
    "size": {"shortest_edge": 9_216, "longest_edge": 12_544},
}


def weights(value: float) -> bytes:
    """A safetensors file of one float."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<f", value)


def put(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A directory as a hub model has it: no recipe."""
    path = tmp_path / "plain"
    path.mkdir()
    put(path / "config.json", CONFIG)
    put(path / "preprocessor_config.json", PROCESSOR)
    put(path / "tokenizer.json", {})
    (path / "model.safetensors").write_bytes(weights(1))
    return path


@pytest.fixture
def complete(plain: Path) -> Path:
    write_recipe(plain, RECIPE)
    return plain


@pytest.fixture
def adapted(complete: Path, tmp_path: Path) -> Path:
    """A directory that holds an adapter and names its base beside it."""
    path = tmp_path / "adapted"
    (path / "lora").mkdir(parents=True)
    file = path / "lora" / "adapter_model.safetensors"
    file.write_bytes(weights(2))
    put(path / "lora" / "adapter_config.json", {"r": 8})
    recipe = replace(RECIPE, base=f"../{complete.name}", adapter="lora", adapter_sha256=file_sha256(file))
    write_recipe(path, recipe)
    return path


def change(path: Path, **values: Any) -> None:
    """Change values of a JSON file; None removes them."""
    merged = {**json.loads(path.read_text(encoding="utf-8")), **values}
    put(path, {key: value for key, value in merged.items() if value is not None})


def refusal(path: Path | str, kind: type[ModelError] = IncompatibleCheckpoint) -> str:
    """Open what must be refused, and return the one clear sentence."""
    with pytest.raises(ModelError) as caught:
        open_model_dir(path)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_a_complete_directory(complete: Path) -> None:
    opened = open_model_dir(str(complete))
    assert opened.recipe == RECIPE
    assert (opened.path, opened.weights, opened.adapter) == (complete, complete, None)
    assert opened.family.name == "qwen3_vl"
    assert opened.template.name == "plain"
    assert opened.tokenizer_file == complete / "tokenizer.json"
    assert opened.pixels == PixelRule(32, 1_024, 4_096)


def test_what_came_later_is_written_where_it_is_in_use() -> None:
    assert {"video", "soft_prompt", "quantization"}.isdisjoint(json.loads(RECIPE.to_json()))
    changes: dict[str, Any] = {"video": "timed-frames", "soft_prompt": 2, "quantization": "nf4"}
    used = replace(RECIPE, **changes)
    assert changes.items() <= json.loads(used.to_json()).items()
    assert Recipe.from_json(used.to_json(), Path("x")) == used


def test_a_recipe_is_detected_where_there_is_none(plain: Path) -> None:
    recipe = open_model_dir(plain).recipe
    assert (recipe.name, recipe.family, recipe.template) == ("plain", "qwen3_vl", "chat")
    assert (recipe.dimensions, recipe.max_tokens) == (64, 256)
    assert (recipe.min_pixels, recipe.max_pixels) == (9_216, 12_544)


def test_a_detected_recipe_does_not_claim_more_tokens_than_an_engine_can_reserve(plain: Path) -> None:
    put(plain / "config.json", {**CONFIG, "text_config": {"hidden_size": 64, "max_position_embeddings": 262_144}})
    assert open_model_dir(plain).recipe.max_tokens == MAX_DETECTED_TOKENS


def test_older_layouts_are_read_too(plain: Path) -> None:
    put(plain / "config.json", {"model_type": "qwen2_vl", **CONFIG["text_config"]})
    (plain / "preprocessor_config.json").unlink()
    older = {"patch_size": 14, "merge_size": 2, "min_pixels": 3_136, "max_pixels": 12_544}
    put(plain / "processor_config.json", {"image_processor": older})
    opened = open_model_dir(plain)
    assert opened.family.name == "qwen2_vl"
    assert opened.pixels == PixelRule(28, 3_136, 12_544)


def test_an_adapter_directory(adapted: Path, complete: Path) -> None:
    opened = open_model_dir(adapted)
    assert (opened.path, opened.weights, opened.adapter) == (adapted, complete, adapted / "lora")


def test_recipes_survive_their_file(complete: Path) -> None:
    recipe = replace(RECIPE, name="\u00fc", base="a/b", adapter="c", adapter_sha256="d")
    write_recipe(complete, recipe)
    assert Recipe.from_json((complete / RECIPE_FILE).read_text(encoding="utf-8"), complete) == recipe


def test_a_recipe_that_could_not_be_read_is_not_written(complete: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="template must be one of"):
        write_recipe(complete, replace(RECIPE, template="poem"))
    assert open_model_dir(complete).recipe == RECIPE


def test_a_changed_recipe_is_checked_too(complete: Path) -> None:
    opened = open_model_dir(complete)
    assert opened.with_recipe(max_tokens=64).recipe.max_tokens == 64
    with pytest.raises(IncompatibleCheckpoint, match="max_tokens must be a positive integer, but is 0"):
        opened.with_recipe(max_tokens=0)


def test_equal_models_have_equal_fingerprints(complete: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(complete, copy)
    (copy / "README.md").write_text("notes do not matter", encoding="utf-8")
    assert open_model_dir(copy).fingerprint == open_model_dir(complete).fingerprint


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("plain/model.safetensors", weights(1.0001)),
        ("plain/tokenizer.json", b'{"version": 2}'),
        ("plain/config.json", json.dumps({**CONFIG, "rope_theta": 1}).encode()),
        ("plain/preprocessor_config.json", json.dumps({**PROCESSOR, "image_mean": [0, 0, 0]}).encode()),
        ("adapted/lora/adapter_model.safetensors", weights(2.0001)),
        ("adapted/lora/adapter_config.json", b'{"r": 16}'),
    ],
)
def test_the_fingerprint_changes_with_every_part(file: str, content: bytes, adapted: Path) -> None:
    change(adapted / RECIPE_FILE, adapter_sha256=None)
    before = open_model_dir(adapted).fingerprint
    (adapted.parent / file).write_bytes(content)
    assert open_model_dir(adapted).fingerprint != before


def test_the_fingerprint_changes_with_the_recipe(complete: Path) -> None:
    opened = open_model_dir(complete)
    for changes in ({"max_pixels": 8_192}, {"template": "chat"}, {"max_tokens": 64}):
        assert opened.with_recipe(**changes).fingerprint != opened.fingerprint


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "~/absent-model", "absent", "a/b/c", Path("a/b")])
def test_what_is_neither_directory_nor_hub_name_is_not_found(name: str | Path) -> None:
    assert "there is no model directory" in refusal(name, ModelNotFound)


def test_a_hub_model_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_args: Any, **_options: Any) -> str:
        raise OSError("no network\nand a long explanation")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = refusal("someone/some-model", ModelNotFound)
    assert message.endswith("someone/some-model is no local directory and could not be had from the hub: no network")


def test_a_hub_model_keeps_its_name(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_args, **_options: str(plain))
    assert open_model_dir("someone/some-model").recipe.name == "someone/some-model"


def test_a_file_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(weights(1))
    assert "is a file, but a model is a directory or a hub name" in refusal(file)


def test_foreign_directories(tmp_path: Path, plain: Path) -> None:
    assert "has no config.json, so it is not a model directory" in refusal(tmp_path)
    put(plain / "config.json", {"model_type": "gpt2"})
    assert "but the model's config says 'gpt2'" in refusal(plain, UnknownFamily)
    put(plain / "config.json", {})
    assert "config says 'None'" in refusal(plain, UnknownFamily)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors"])
@pytest.mark.parametrize("recipe", [True, False], ids=["complete", "plain"])
def test_missing_files_are_named(name: str, recipe: bool, plain: Path) -> None:
    if recipe:
        write_recipe(plain, RECIPE)
    (plain / name).unlink()
    named = {"model.safetensors": "*.safetensors", "preprocessor_config.json": "processor_config.json"}.get(name, name)
    assert named in refusal(plain)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", RECIPE_FILE])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "must hold one JSON object"),
        (b"null", "must hold one JSON object"),
        (b"\xff\xfe\x00", "cannot be read as text"),
    ],
)
def test_damaged_json_names_the_file(name: str, content: bytes, message: str, complete: Path) -> None:
    (complete / name).write_bytes(content)
    sentence = refusal(complete)
    assert name in sentence
    assert message in sentence


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_config": {"max_position_embeddings": 9}}, "no 'hidden_size'"),
        ({"text_config": {"hidden_size": 64}}, "no 'max_position_embeddings'"),
        ({"text_config": {"hidden_size": "wide", "max_position_embeddings": 9}}, "value of the wrong type"),
        ({"text_config": [1]}, "has no 'hidden_size'"),
    ],
)
def test_incomplete_configurations(changes: dict[str, Any], message: str, plain: Path) -> None:
    change(plain / "config.json", **changes)
    assert message in refusal(plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": {}, "min_pixels": None}, "no 'min_pixels'"),
        ({"size": 5}, "picture settings cannot be honoured"),
        ({"patch_size": "x"}, "picture settings cannot be honoured"),
        ({"merge_size": None}, "has no 'merge_size'"),
    ],
)
def test_incomplete_image_processors(changes: dict[str, Any], message: str, plain: Path) -> None:
    change(plain / "preprocessor_config.json", **changes)
    assert message in refusal(plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "unknown keys: surprise"),
        ({"format_version": 99, "surprise": 1}, "format_version must be 1, but is 99"),
        ({"dimensions": None}, "incomplete: .*dimensions"),
        ({"dimensions": 0}, "dimensions must be a positive integer, but is 0"),
        ({"dimensions": True}, "dimensions must be a positive integer, but is True"),
        ({"dimensions": "64"}, "dimensions must be a positive integer, but is '64'"),
        ({"dimensions": 128}, "dimensions are 128, but config.json's hidden_size is 64"),
        ({"max_tokens": -1}, "max_tokens must be a positive integer"),
        ({"min_pixels": 5_000}, "min_pixels must be at most max_pixels 4096, but is 5000"),
        ({"matryoshka_dimensions": 16}, "incomplete|positive integers"),
        ({"matryoshka_dimensions": ["16"]}, "matryoshka_dimensions must be positive integers"),
        ({"matryoshka_dimensions": [16, 65]}, "matryoshka_dimensions must be at most 64, but one is 65"),
        ({"pooling": "cls"}, "pooling must be 'last_token' or 'mean', but is 'cls'"),
        ({"position_mode": "2d"}, "position_mode must be 'mrope' or '1d', but is '2d'"),
        ({"attention": "prefix"}, "attention must be 'causal' or 'bidirectional', but is 'prefix'"),
        ({"video": "native"}, "video must be 'frames' or 'timed-frames', but is 'native'"),
        (
            {"video": "timed-frames", "template": "qwen3-vl-embedding"},
            "needs a template that keeps the order of content, but 'qwen3-vl-embedding' moves pictures",
        ),
        ({"template": "poem"}, "template must be one of .*plain.*, but is 'poem'"),
        ({"template": ["plain"]}, "template must be a text"),
        ({"template_version": 7}, "template 'plain' is at version 1 here, but the model was made with version 7"),
        ({"name": ""}, "name must be a text"),
        ({"family": "qwen2_vl"}, "the recipe's family is 'qwen2_vl', but config.json's model_type is 'qwen3_vl'"),
        ({"adapter": 5}, "adapter must be a text"),
        ({"adapter": "lora"}, "names the adapter 'lora', but .* is absent"),
    ],
)
def test_recipes_that_cannot_be_honoured(changes: dict[str, Any], message: str, complete: Path) -> None:
    change(complete / RECIPE_FILE, **changes)
    assert re.search(message, refusal(complete))


def test_an_unknown_family_in_a_recipe(complete: Path) -> None:
    change(complete / RECIPE_FILE, family="clip")
    assert "but is 'clip'" in refusal(complete, UnknownFamily)


def test_adapters_that_do_not_belong(adapted: Path) -> None:
    file = adapted / "lora" / "adapter_model.safetensors"
    file.write_bytes(weights(3))
    assert "is not the adapter that mllm_embed.json records (SHA-256 differs)" in refusal(adapted)
    file.write_bytes(weights(3)[:-1])
    change(adapted / RECIPE_FILE, adapter_sha256=None)
    assert "adapter_model.safetensors must have" in refusal(adapted)
    file.unlink()
    assert "names the adapter 'lora'" in refusal(adapted)


def test_a_base_that_is_absent(adapted: Path) -> None:
    change(adapted / RECIPE_FILE, base="../elsewhere")
    assert "elsewhere" in refusal(adapted, ModelNotFound)


def test_the_built_in_name_is_a_directory_of_the_package() -> None:
    path = model_dir._local_dir(model_dir.BUILT_IN)
    assert path == Path(model_dir.__file__).parent / "models" / model_dir.BUILT_IN
