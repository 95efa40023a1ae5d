"""LoRA adapters that are run beside a served model, on the same weights, each under a name of its own.

An adapter is what PEFT writes (`adapter_config.json`, `adapter_model.safetensors`), or a model directory that holds
one: then its own recipe is honoured, as far as an engine that is already running can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mllm_embed.errors import IncompatibleCheckpoint, ModelNotFound
from mllm_embed.families import Family
from mllm_embed.model_dir import RECIPE_FILE, ModelDir, file_sha256, open_model_dir

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_OF_THE_ENGINE = (
    *("family", "dimensions", "pooling", "position_mode", "attention", "min_pixels", "max_pixels"),
    *("soft_prompt", "quantization"),
)
"""What is set when an engine starts, and so must be the same for all that it runs."""


@dataclass(frozen=True)
class AdapterRoom:
    """What an engine is prepared for when it starts.

    Attributes:
        slots: adapters at once, beside the model's own.
        rank: highest rank of one.
        tower: whether one may adapt the vision tower.
    """

    slots: int
    rank: int
    tower: bool = False

    @classmethod
    def for_all(cls, adapters: Iterable[ModelDir], *, slots: int, rank: int) -> AdapterRoom:
        """Return the room for `slots` adapters of `rank`, and no less than these need."""
        folders = [(each.adapter, each.family) for each in adapters if each.adapter is not None]
        return cls(
            slots=max(slots, len(folders)),
            rank=max([rank, *(lora_rank(folder) for folder, _ in folders)]),
            tower=any(adapts_tower(folder, family) for folder, family in folders),
        )


def open_adapter(base: ModelDir, name: str, path: Path) -> ModelDir:
    """Open an adapter that is to be run on a served model's weights.

    Args:
        base: the served model.
        name: what the adapter is called in the API.
        path: its folder.

    Returns:
        the base's weights with this adapter in place of the model's own.

    Raises:
        ModelNotFound: there is no adapter.
        IncompatibleCheckpoint: it is no LoRA adapter, is corrupt, or was made for another model.
    """
    if (path / RECIPE_FILE).exists():
        return _with_recipe_of_its_own(base, name, path)
    if not (path / _CONFIG).is_file() or not (path / _WEIGHTS).is_file():
        raise ModelNotFound(f"the adapter {name!r}: its folder does not hold {_CONFIG} and {_WEIGHTS}")
    _check_is_lora(name, path)
    _check_shapes(name, path, base.weights)
    recipe = replace(base.recipe, name=name, adapter_sha256=_hash_of_weights(name, path))
    return replace(base, path=path.resolve(), adapter=path.resolve(), recipe=recipe)


def check_unchanged(adapter: ModelDir) -> None:
    """Raise `IncompatibleCheckpoint` if the weights on disk are not those that were opened."""
    folder = adapter.adapter
    if folder is None or _hash_of_weights(adapter.recipe.name, folder) != adapter.recipe.adapter_sha256:
        raise IncompatibleCheckpoint(f"the adapter {adapter.recipe.name!r} has been changed on disk: load it again")


def lora_rank(adapter: Path) -> int:
    """Return the highest rank in an adapter."""
    config = _config(adapter)
    return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])


def adapts_tower(adapter: Path, family: Family) -> bool:
    """Return whether an adapter holds weights for the vision tower or the projector."""
    parts = [f".{part.rpartition('.')[2]}." for part in (family.tower, family.projector) if part is not None]
    with safe_open(adapter / _WEIGHTS, framework="numpy") as stored:
        return any(part in name for name in stored.keys() for part in parts)  # noqa: SIM118  # not a mapping


def uses_dora(adapter: Path) -> bool:
    """Return whether an adapter is a DoRA, whose magnitudes plain LoRA lacks."""
    return bool(_config(adapter).get("use_dora"))


def _with_recipe_of_its_own(base: ModelDir, name: str, path: Path) -> ModelDir:
    opened = open_model_dir(path)
    if opened.adapter is None:
        raise IncompatibleCheckpoint(
            f"the adapter {name!r}: its folder is a complete model, which is served on its own"
        )
    if opened.weights != base.weights:
        raise IncompatibleCheckpoint(
            f"the adapter {name!r} was made for the base {opened.recipe.base!r}, which is not what is served here"
        )
    for field in _OF_THE_ENGINE:
        own, served = getattr(opened.recipe, field), getattr(base.recipe, field)
        if own != served:
            raise IncompatibleCheckpoint(
                f"the adapter {name!r}: its {field} is {own!r}, but the engine's is {served!r}"
            )
    _check_is_lora(name, opened.adapter)
    _check_shapes(name, opened.adapter, base.weights)
    limit = min(opened.recipe.max_tokens, base.recipe.max_tokens)
    digest = _hash_of_weights(name, opened.adapter)
    return replace(opened, recipe=replace(opened.recipe, name=name, max_tokens=limit, adapter_sha256=digest))


def _check_is_lora(name: str, adapter: Path) -> None:
    try:
        config = _config(adapter)
        kind, rank = config.get("peft_type"), lora_rank(adapter)
        with safe_open(adapter / _WEIGHTS, framework="numpy") as stored:
            empty = not stored.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        raise IncompatibleCheckpoint(f"the adapter {name!r} cannot be read: its files are damaged") from None
    if kind != "LORA" or rank < 1 or empty:
        raise IncompatibleCheckpoint(f"the adapter {name!r} must be a LoRA adapter, but is {kind!r} of rank {rank}")


def _check_shapes(name: str, adapter: Path, weights: Path) -> None:
    """Refuse an adapter made for layers of other sizes: vLLM copies what is too small into a corner, without a word.

    Layers are known by the ends of their names, since the beginnings vary with who wrote them. What has no equal in
    the model is left to the engine, which proves that the adapter changes something.
    """
    layers = _layer_shapes(weights)
    with safe_open(adapter / _WEIGHTS, framework="numpy") as stored:
        for key in stored.keys():  # noqa: SIM118  # not a mapping
            layer, _, side = key.removesuffix(".weight").rpartition(".")
            shapes = layers.get(_end_of(layer))
            if shapes is None or side not in ("lora_A", "lora_B"):
                continue
            axis = 1 if side == "lora_A" else 0  # A takes what the layer takes, B gives what it gives
            if stored.get_slice(key).get_shape()[axis] not in {shape[axis] for shape in shapes}:
                raise IncompatibleCheckpoint(
                    f"the adapter {name!r} was made for a model of other sizes: {layer} is not as wide in this one"
                )


def _layer_shapes(weights: Path) -> dict[str, set[tuple[int, int]]]:
    """Return the shapes of a model's matrices by the ends of their names; packed ones do not show theirs."""
    found: dict[str, set[tuple[int, int]]] = {}
    for file in sorted(weights.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as stored:
            for key in stored.keys():  # noqa: SIM118  # not a mapping
                layer = stored.get_slice(key)
                shape = layer.get_shape()
                if len(shape) == 2 and layer.get_dtype() in ("F32", "F16", "BF16"):
                    found.setdefault(_end_of(key.removesuffix(".weight")), set()).add((shape[0], shape[1]))
    return found


def _end_of(key: str) -> str:
    """Return the part of a layer's name behind the number of its block, number included."""
    match = re.search(r"\d+\.[\w.]*$", key)
    return key if match is None else match[0]


def _hash_of_weights(name: str, adapter: Path) -> str:
    try:
        return file_sha256(adapter / _WEIGHTS)
    except OSError:
        raise ModelNotFound(f"the adapter {name!r} is not there any more") from None


def _config(adapter: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((adapter / _CONFIG).read_text(encoding="utf-8"))
    return config
