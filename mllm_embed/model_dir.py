"""`mllm_embed.json`: the recipe that a model directory carries, so that serving it needs no flags.

A model directory is either complete (config, weights, tokenizer, recipe) or an adapter directory (adapter weights and
a recipe that names its base). A directory or hub model without a recipe is a plain LVLM: its family is detected and the
family's default template is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm_embed.errors import IncompatibleCheckpoint, ModelNotFound
from mllm_embed.families import Family, Template, detect_family, get_family
from mllm_embed.families.pictures import PictureRule
from mllm_embed.published import PUBLISHED
from mllm_embed.recipe import FORMAT_VERSION, POOLINGS, Recipe
from mllm_embed.weight_files import check_safetensors, check_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

RECIPE_FILE = "mllm_embed.json"
BUILT_IN = "mllm-embed-mini"
"""The model that ships with the package; it is found by this name."""
MAX_DETECTED_TOKENS = 32_768
"""Longest prompt assumed for an LVLM without a recipe: an engine reserves memory for it, and some claim 262,144."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelDir:
    """An opened model directory.

    Attributes:
        path: the directory itself.
        weights: directory with config, tokenizer and weights (the base's, for an adapter directory).
        adapter: directory of the LoRA adapter, if any.
        recipe: the recorded or detected recipe.
    """

    path: Path
    weights: Path
    adapter: Path | None
    recipe: Recipe

    @property
    def family(self) -> Family:
        """The backbone family."""
        return get_family(self.recipe.family)

    @property
    def template(self) -> Template:
        """The prompt format."""
        return self.recipe.find_template(self.path)

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer's one file."""
        return self.weights / "tokenizer.json"

    @cached_property
    def pixels(self) -> PictureRule:
        """The picture rule in force: the checkpoint's own with the recipe's limits."""
        rule = _read_pictures(self.weights, self.family)
        try:
            return rule.limited(self.recipe.min_pixels, self.recipe.max_pixels)
        except ValueError as error:
            raise IncompatibleCheckpoint(f"{self.path}: {error}") from None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over recipe, configuration, tokenizer, weights and adapter: equal means equal vectors."""
        digest = hashlib.sha256(self.recipe.to_json().encode())
        folders = [self.weights] if self.adapter is None else [self.weights, self.adapter]
        for folder in folders:
            for file in sorted(folder.iterdir()):
                if file.suffix in (".json", ".safetensors") and file.name != RECIPE_FILE:
                    digest.update(file.name.encode())
                    about = file.stat()
                    digest.update(_known_sha256(file, about.st_size, about.st_mtime_ns).encode())
        return digest.hexdigest()

    def with_recipe(self, **changes: Any) -> ModelDir:
        """Return the same directory under a changed recipe, for a model that is about to be made from it."""
        recipe = replace(self.recipe, **changes)
        recipe.check(self.path)
        return replace(self, recipe=recipe)


def open_model_dir(name_or_path: str | Path) -> ModelDir:
    """Open a local model directory, or a hub model (downloaded or from the hub's cache).

    Raises:
        ModelNotFound: neither a directory nor a hub model that can be had.
        IncompatibleCheckpoint: files are missing, corrupt or do not fit each other.
        UnknownFamily: the architecture has no family file.
    """
    path = _local_dir(name_or_path)
    recipe_file = path / RECIPE_FILE
    if recipe_file.exists():
        recipe = Recipe.from_json(_read_text(recipe_file), recipe_file)
    else:
        recipe = _recipe_of_others(path, _model_name(name_or_path))
    weights = path if recipe.base is None else _base_dir(path, recipe.base)
    for required in ("config.json", "tokenizer.json"):
        if not (weights / required).exists():
            raise IncompatibleCheckpoint(f"{weights} has no {required}, so it is not a model directory")
    check_weights(weights)
    model_dir = ModelDir(path, weights, _adapter_dir(path, recipe), recipe)
    _check_fits(model_dir)
    return model_dir


def _check_fits(model_dir: ModelDir) -> None:
    """Raise `IncompatibleCheckpoint` unless recipe, configuration and image processor belong together."""
    config = _read_json(model_dir.weights / "config.json")
    if config.get("model_type") != model_dir.family.name:
        raise IncompatibleCheckpoint(
            f"{model_dir.path}: the recipe's family is {model_dir.family.name!r}, but config.json's model_type is "
            f"{config.get('model_type')!r}"
        )
    width = model_dir.family.text_config(config).get("hidden_size")
    if width != model_dir.recipe.dimensions:
        raise IncompatibleCheckpoint(
            f"{model_dir.path}: the recipe's dimensions are {model_dir.recipe.dimensions}, "
            f"but config.json's hidden_size is {width!r}"
        )
    _ = model_dir.pixels  # reads the image processor's settings


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write `mllm_embed.json` into `path`, after the same checks as reading."""
    recipe.check(path / RECIPE_FILE)
    (path / RECIPE_FILE).write_text(recipe.to_json(), encoding="utf-8")


def detect_recipe(path: Path, *, name: str) -> Recipe:
    """Make the default recipe of a plain LVLM from its own configuration."""
    config = _read_json(path / "config.json")
    family = detect_family(str(config.get("model_type")))
    text = family.text_config(config)
    template = family.templates[family.default_template]
    min_pixels, max_pixels = _read_pictures(path, family).limits
    try:
        return Recipe(
            name=name,
            family=family.name,
            template=template.name,
            template_version=template.version,
            position_mode=family.position_modes[0],
            attention=family.attention_modes[0],
            dimensions=int(text["hidden_size"]),
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            max_tokens=min(int(text["max_position_embeddings"]), MAX_DETECTED_TOKENS),
        )
    except KeyError as error:
        raise IncompatibleCheckpoint(f"{path}: its configuration has no {error.args[0]!r}") from None
    except (TypeError, ValueError) as error:
        raise IncompatibleCheckpoint(f"{path}: its configuration holds a value of the wrong type: {error}") from None


def _read_pictures(weights: Path, family: Family) -> PictureRule:
    """Read the checkpoint's own picture rule."""
    processor, config = _image_processor_config(weights), _read_json(weights / "config.json")
    try:
        return family.read_pictures(processor, config)
    except KeyError as error:
        raise IncompatibleCheckpoint(f"{weights}: its configuration has no {error.args[0]!r}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise IncompatibleCheckpoint(f"{weights}: its picture settings cannot be honoured: {error}") from None


def _recipe_of_others(path: Path, name: str) -> Recipe:
    """Make the recipe of a model that was not made here: a published embedder, or a plain LVLM.

    A directory with nothing but a PEFT adapter is run on the base that the adapter names.
    """
    adapter_file, base = path / "adapter_config.json", None
    if adapter_file.exists() and not (path / "config.json").exists():
        base = str(_read_json(adapter_file).get("base_model_name_or_path"))
    weights = path if base is None else _base_dir(path, base)
    if name not in PUBLISHED:
        _check_brings_no_code(weights)
    recipe = replace(detect_recipe(weights, name=name), base=base, adapter=None if base is None else ".")
    if name in PUBLISHED:
        return PUBLISHED[name].apply(recipe)
    _LOG.warning(
        "%s carries no recipe and is no published embedder known here: it is run as family %s with the template %s, "
        "pooling the last token",
        name,
        recipe.family,
        recipe.template,
    )
    return recipe


def _check_brings_no_code(weights: Path) -> None:
    """Raise `IncompatibleCheckpoint` if a checkpoint is meant to be read by code of its own: that is never run.

    A recipe, ours or one of a published embedder, says that the family's code reads it all the same.
    """
    for file in (weights / "config.json", weights / "preprocessor_config.json"):
        if file.exists() and _read_json(file).get("auto_map"):
            raise IncompatibleCheckpoint(
                f"{file} names code of the checkpoint's own (auto_map), and remote code is never run here"
            )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=256)
def _known_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    """Hash a file once, however many adapters are opened on it, unless it has been written since."""
    return file_sha256(path)


def _model_name(name_or_path: str | Path) -> str:
    """A hub model keeps its name; a directory is called by its last part."""
    return Path(name_or_path).name if Path(name_or_path).is_dir() else str(name_or_path)


def _local_dir(name_or_path: str | Path) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path.resolve()
    name = str(name_or_path)
    if name == BUILT_IN:
        return Path(__file__).parent / "models" / BUILT_IN
    if path.exists():
        raise IncompatibleCheckpoint(f"{name} is a file, but a model is a directory or a hub name")
    if isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelNotFound(f"there is no model directory {name}")
    if name in PUBLISHED:
        PUBLISHED[name].check_runs()  # before gigabytes are downloaded
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]))
    except Exception as error:  # the hub client raises many kinds; all mean the same to the caller
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelNotFound(f"{name} is no local directory and could not be had from the hub: {reason}") from error


def _base_dir(path: Path, base: str) -> Path:
    beside = path / base
    return beside.resolve() if beside.is_dir() else _local_dir(base)


def _adapter_dir(path: Path, recipe: Recipe) -> Path | None:
    if recipe.adapter is None:
        return None
    adapter = path / recipe.adapter
    weights = adapter / "adapter_model.safetensors"
    if not weights.exists():
        raise IncompatibleCheckpoint(
            f"{path / RECIPE_FILE} names the adapter {recipe.adapter!r}, but {weights} is absent"
        )
    if recipe.adapter_sha256 is not None and file_sha256(weights) != recipe.adapter_sha256:
        raise IncompatibleCheckpoint(f"{weights} is not the adapter that {RECIPE_FILE} records (SHA-256 differs)")
    check_safetensors(weights)
    return adapter.resolve()


def _image_processor_config(path: Path) -> Mapping[str, Any]:
    """Read the image processor's settings from either of the two files that transformers writes."""
    if (path / "preprocessor_config.json").exists():
        return _read_json(path / "preprocessor_config.json")
    config = _read_json(path / "processor_config.json")
    return dict(config.get("image_processor", config))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise IncompatibleCheckpoint(f"{path.parent} has no {path.name}, so it is not a model directory") from None
    except (OSError, UnicodeDecodeError) as error:
        raise IncompatibleCheckpoint(f"{path} cannot be read as text: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read_text(path))
    except ValueError as error:
        raise IncompatibleCheckpoint(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise IncompatibleCheckpoint(f"{path} must hold one JSON object")
    return value


__all__ = [
    "BUILT_IN",
    "FORMAT_VERSION",
    "MAX_DETECTED_TOKENS",
    "POOLINGS",
    "RECIPE_FILE",
    "ModelDir",
    "Recipe",
    "detect_recipe",
    "file_sha256",
    "open_model_dir",
    "write_recipe",
]
