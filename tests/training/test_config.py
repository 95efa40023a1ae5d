"""Recipes are checked whole before anything starts."""

from pathlib import Path

import pytest

from mllm_embed_training.config import ConfigError, load_config

pytestmark = pytest.mark.fast
CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.yaml"))


def test_there_are_recipes() -> None:
    assert len(CONFIGS) >= 4


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_loads_and_begins_with_its_command(path: Path) -> None:
    assert load_config(path).run_dir
    assert path.read_text().startswith(f"# mllm-embed train training/configs/{path.name}\n")


def test_overrides_reach_their_section() -> None:
    config = load_config(CONFIGS[0], ["optim.steps=7", "data.tasks={toy-t2i: 1}", "lora.r=3"])
    assert (config.optim.steps, config.data.tasks, config.lora and config.lora.r) == (7, {"toy-t2i": 1.0}, 3)


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(
        "stage: magic\nrun_dir: x\nmodel: {}\ndata: {tasks: {}, batch_size: 0, group_size: 1, epochs: 2}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(recipe)
    for fault in ("stage", "model", "exactly one of scratch and path", "data.batch_size", "data.epochs", "optim"):
        assert fault in str(caught.value)


def test_an_override_needs_a_value() -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        load_config(CONFIGS[0], ["optim.steps"])


def test_an_absent_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"stage: [", b"\x00"], ids=["no UTF-8", "no YAML", "binary"])
def test_a_file_that_is_no_recipe_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml cannot be read"):
        load_config(tmp_path / "bad.yaml")
