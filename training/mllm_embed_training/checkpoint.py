"""Training state on disk: written whole or not at all, verified before it is trusted.

    RUN_DIR/checkpoints/step-00000200/
        weights.safetensors     the trainable parameters, by name (all of them, or an adapter's)
        optimizer.pt            the optimiser's state
        state.pt                step, `extra`, and the random states of Python, NumPy and torch
        manifest.json           size and SHA-256 of the files above

A checkpoint is written under a hidden name, flushed to the disk and then renamed, so that a kill or a full disk at any
moment leaves the previous one untouched.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.model_dir import file_sha256
from mllm_embed_training.errors import TrainingFailed
from mllm_embed_training.run_files import REPLACED, UNFINISHED, written_whole

logger = logging.getLogger(__name__)

_FOLDER = "checkpoints"
_PREFIX = "step-"
_WEIGHTS, _OPTIMIZER, _STATE, _MANIFEST = "weights.safetensors", "optimizer.pt", "state.pt", "manifest.json"


def save(
    run_dir: Path,
    step: int,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: dict[str, Any],
    keep: int = 3,
) -> Path:
    """Write the training state after `step` steps, and delete all but the last `keep` checkpoints up to it.

    Args:
        run_dir: the run's directory, made if absent.
        step: optimiser steps done.
        model: its trainable parameters are kept; frozen ones come from the base model again.
        optimizer: over those parameters.
        extra: whatever else the run needs (sampler position, schedule, configuration): plain values, containers and
            tensors, returned by `load` as they are.
        keep: at least 1.

    Returns:
        the checkpoint's directory.

    Raises:
        ValueError: `keep` or `step` out of range.
        TrainingFailed: it could not be written, because the disk is full for instance; earlier ones are untouched.
    """
    if keep < 1 or step < 0:
        raise ValueError(f"keep must be at least 1 and step at least 0, but they are {keep} and {step}")
    folder = run_dir / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    target = folder / f"{_PREFIX}{step:08d}"
    try:
        with written_whole(target) as unfinished:
            _write_files(unfinished, step, model, optimizer, extra)
    except (OSError, SafetensorError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise TrainingFailed(f"{target} could not be written, earlier ones are untouched: {error}") from error
    for old in [path for path in _steps(folder) if _step_of(path) <= step][keep:]:
        shutil.rmtree(old)
    return target


def load(path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Bring model, optimiser and all random generators back to a checkpoint's state.

    Everything is read and compared before anything is changed.

    Args:
        path: a directory from `save` or `latest`.
        model: with the same trainable parameters as when it was saved.
        optimizer: over those parameters, in the same order.

    Returns:
        the `extra` given to `save`.

    Raises:
        IncompatibleCheckpoint: the checkpoint is damaged, or belongs to another model or optimiser.
    """
    if fault := _fault(path):
        raise IncompatibleCheckpoint(f"{path} is damaged: {fault}")
    weights = load_file(path / _WEIGHTS)
    optimizer_state = torch.load(path / _OPTIMIZER, map_location="cpu", weights_only=True)
    state = torch.load(path / _STATE, map_location="cpu", weights_only=True)
    parameters = _trainable(model)
    _check_weights(path, weights, parameters)
    try:
        optimizer.load_state_dict(optimizer_state)
    except ValueError as error:
        raise IncompatibleCheckpoint(f"{path / _OPTIMIZER} belongs to another optimiser: {error}") from None
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    _set_rng_state(state["rng"])
    extra: dict[str, Any] = state["extra"]
    return extra


def read_extra(path: Path) -> dict[str, Any]:
    """Return the `extra` given to `save`, and change nothing.

    Raises:
        IncompatibleCheckpoint: the checkpoint is damaged.
    """
    if fault := _fault(path):
        raise IncompatibleCheckpoint(f"{path} is damaged: {fault}")
    extra: dict[str, Any] = torch.load(path / _STATE, map_location="cpu", weights_only=True)["extra"]
    return extra


def latest(run_dir: Path) -> Path | None:
    """Return the newest undamaged checkpoint of a run, or None; damaged ones are named in a warning and passed over."""
    for path in _steps(run_dir / _FOLDER):
        fault = _fault(path)
        if fault is None:
            return path
        logger.warning("checkpoint %s is passed over: %s", path, fault)
    return None


def _write_files(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Any]
) -> None:
    weights = {name: p.detach().contiguous().cpu() for name, p in _trainable(model).items()}
    save_file(weights, folder / _WEIGHTS)
    torch.save(optimizer.state_dict(), folder / _OPTIMIZER)
    torch.save({"step": step, "extra": extra, "rng": _rng_state()}, folder / _STATE)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in (_WEIGHTS, _OPTIMIZER, _STATE)
    }
    (folder / _MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=2) + "\n", encoding="utf-8")


def _sweep(folder: Path) -> None:
    """Remove what a killed process left behind."""
    for path in folder.iterdir():
        if path.name.startswith((UNFINISHED, REPLACED)):
            shutil.rmtree(path)


def _steps(folder: Path) -> list[Path]:
    """Return the checkpoints, newest first."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(found, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _fault(path: Path) -> str | None:
    """Say what is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        for name in (_WEIGHTS, _OPTIMIZER, _STATE):
            expected, file = manifest["files"][name], path / name
            size = file.stat().st_size
            if size != expected["bytes"]:
                return f"{name} must have {expected['bytes']} bytes, but has {size}"
            if file_sha256(file) != expected["sha256"]:
                return f"the content of {name} has changed (SHA-256 differs)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it cannot be read ({error})"
    except (ValueError, KeyError, TypeError):
        return f"{_MANIFEST} is not readable"
    return None


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trained parameters by name; tied ones appear once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _check_weights(path: Path, weights: dict[str, Tensor], parameters: dict[str, nn.Parameter]) -> None:
    if different := sorted(weights.keys() ^ parameters.keys()):
        where = "the checkpoint" if different[0] in weights else "the model"
        raise IncompatibleCheckpoint(
            f"{path} belongs to another model: {len(different)} trainable weights do not match, "
            f"the first is {different[0]}, which only {where} has"
        )
    for name, parameter in parameters.items():
        if weights[name].shape != parameter.shape:
            raise IncompatibleCheckpoint(
                f"{path} belongs to another model: {name} must have the shape {list(parameter.shape)}, "
                f"but has {list(weights[name].shape)}"
            )


def _rng_state() -> dict[str, Any]:
    """Collect the generators' states as plain values and tensors, which `weights_only` loading accepts."""
    numpy_state: Any = np.random.get_state()  # noqa: NPY002  # the global generator
    kind, keys, *rest = numpy_state
    on_cuda = torch.cuda.is_initialized()
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if on_cuda else [],
    }


def _set_rng_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002  # the global generator
    torch.set_rng_state(state["torch"])
    devices = torch.cuda.device_count()
    if len(state["cuda"]) == devices:
        torch.cuda.set_rng_state_all(state["cuda"])
    elif state["cuda"]:
        logger.warning(
            "the checkpoint holds random states of %d GPUs, but there are %d: dropout goes on with other numbers",
            len(state["cuda"]),
            devices,
        )
