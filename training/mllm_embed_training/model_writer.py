"""Writes a complete model directory: under a hidden name until everything is there and right."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError

from mllm_embed.errors import ModelError
from mllm_embed.model_dir import open_model_dir
from mllm_embed.modeling.loading import load_without_adapter
from mllm_embed_training.export_files import matryoshka_keys, write_companions
from mllm_embed_training.export_proof import vectors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from mllm_embed.model_dir import ModelDir

Dtype = Literal["bfloat16", "float16", "float32"]


@contextmanager
def all_or_nothing(out: Path) -> Iterator[Path]:
    """Give a hidden directory to fill that becomes `out` on success and vanishes on failure.

    Raises:
        ModelError: `out` holds something already, or could not be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists and is not empty; choose another folder or remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.unfinished")
    if folder.exists():  # left by a killed export
        shutil.rmtree(folder)
    folder.mkdir()
    try:
        yield folder
        folder.replace(out)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{out} could not be written: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_model(model: Any, target: ModelDir, folder: Path, dtype: Dtype, max_shard_mib: float) -> Tensor:
    """Round the weights, write them and all files beside them.

    Args:
        model: the LVLM in float32, without an adapter; its weights are rounded in place.
        target: a directory with tokenizer and processors, under the recipe of the model that is made.
        folder: an existing, empty directory.
        dtype: of the written weights.
        max_shard_mib: largest weight file; a single tensor that is larger gets a file of its own.

    Returns:
        the fixed set's vectors under the rounded weights, computed in float32, [N, D].
    """
    for key, value in matryoshka_keys(target).items():
        setattr(model.config, key, value)
    _cast_parameters(model, getattr(torch, dtype))
    # A file's header comes on top of its tensors.
    model.save_pretrained(folder, max_shard_size=int(max_shard_mib * 2**20) - 2**16)
    write_companions(target, folder)
    _cast_parameters(model, torch.float32)
    return vectors(model, target)


def read_back(folder: Path, device: str) -> Tensor:
    """Embed the fixed set with the written directory alone; float32 [N, D]."""
    written = open_model_dir(folder)
    return vectors(load_without_adapter(written, device=device).eval(), written)


def weight_bytes(folder: Path) -> int:
    """Return the size of the weight files together."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _cast_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights alone: `Module.to` would round the rotary frequencies too, which are not shipped."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
