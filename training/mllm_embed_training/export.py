"""Base + adapter -> one complete model directory, proved to give the trained model's vectors, or nothing at all."""

from __future__ import annotations

import gc
import logging
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError

from mllm_embed.errors import IncompatibleCheckpoint, ModelError
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.loading import attach_adapter, keep_unpacked, load_without_adapter
from mllm_embed_training.export_files import matryoshka_keys, write_companions
from mllm_embed_training.export_proof import (
    Proof,
    check_effect,
    check_merged,
    check_written,
    fixed_set,
    least_cosine,
    vectors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor, nn

logger = logging.getLogger(__name__)

Dtype = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export.

    Attributes:
        model_dir: the new directory, opened.
        proof: what was measured on the fixed set of inputs.
        bytes: size of the weight files together.
    """

    model_dir: ModelDir
    proof: Proof
    bytes: int


def export(
    base: ModelDir,
    adapter: Path | None,
    out: Path,
    *,
    name: str,
    template: str | None = None,
    matryoshka_dimensions: Sequence[int] | None = None,
    dtype: Dtype = "bfloat16",
    max_shard_mib: float = 48,
    device: str = "cpu",
) -> Exported:
    """Merge an adapter into its base and write a directory that `mllm-embed serve`, stock vLLM and others serve alike.

    Everything is written beside `out` under a hidden name and becomes `out` only when all checks have passed: the
    adapter moves the vectors of a fixed set of inputs, the merged model gives the unmerged model's (float32, cosine at
    least 0.9999), and the files read back give the vectors of what was to be written.

    Args:
        base: the base model.
        adapter: PEFT adapter directory; None takes `base`'s own, or exports a fully trained model as it is.
        out: directory to make; must not exist, or be empty.
        name: model name in the API.
        template: prompt format that the model was trained with; None keeps `base`'s.
        matryoshka_dimensions: widths that it was trained to be cut to; None keeps `base`'s.
        dtype: of the shipped weights.
        max_shard_mib: largest weight file; a single tensor that is larger gets a file of its own.
        device: torch device to compute on.

    Raises:
        IncompatibleCheckpoint: adapter and base do not fit, or a check failed; `out` is not made.
        ModelError: `out` holds something already.
    """
    adapter = base.adapter if adapter is None else adapter
    target = _target(base, name=name, template=template, matryoshka_dimensions=matryoshka_dimensions)
    if adapter is not None and not (adapter / "adapter_model.safetensors").is_file():
        raise IncompatibleCheckpoint(f"{adapter} holds no adapter_model.safetensors, so it is not a LoRA adapter")
    with _all_or_nothing(out) as folder:
        model = load_without_adapter(base, device=device).eval()
        before = vectors(model, target)
        unmerged, merged_cosine, effect = before, 1.0, None
        if adapter is not None:
            model, unmerged = _merge(model, adapter, target)
            if base.recipe.quantization is not None:
                unmerged = _vectors_in_four_bits(base, adapter, target, device)
            effect = check_effect(before, unmerged)
            merged_cosine = check_merged(before, unmerged, vectors(model, target))
        meant = _write_weights(model, target, folder, dtype, max_shard_mib)
        del model
        gc.collect()
        write_companions(target, folder)
        written = _read_back(folder, device)
        check_written(meant, written)
    proof = Proof(len(fixed_set()), merged_cosine, effect, least_cosine(unmerged, written))
    logger.info("%s: merged cosine %.7f, %s cosine %.7f", out, merged_cosine, dtype, proof.rounded_cosine)
    return Exported(open_model_dir(out), proof, sum(file.stat().st_size for file in out.glob("*.safetensors")))


def _target(
    base: ModelDir, *, name: str, template: str | None, matryoshka_dimensions: Sequence[int] | None
) -> ModelDir:
    """Return the base under the recipe of the model that is made."""
    changes: dict[str, Any] = {
        "name": name,
        "base": None,
        "adapter": None,
        "adapter_sha256": None,
        "quantization": None,
    }
    if template is not None:
        found = replace(base.recipe, template=template).find_template(base.path)
        changes |= {"template": found.name, "template_version": found.version}
    if matryoshka_dimensions is not None:
        changes["matryoshka_dimensions"] = tuple(sorted(set(matryoshka_dimensions)))
    return base.with_recipe(**changes)


def _merge(model: nn.Module, adapter: Path, target: ModelDir) -> tuple[nn.Module, Tensor]:
    """Attach the adapter, embed the fixed set, merge; return the merged model and the unmerged vectors."""
    tuned: Any = attach_adapter(model, adapter).eval()
    unmerged = vectors(tuned, target)
    return tuned.merge_and_unload(safe_merge=True).eval(), unmerged


def _vectors_in_four_bits(base: ModelDir, adapter: Path, target: ModelDir, device: str) -> Tensor:
    """Embed the fixed set as training did: by bitsandbytes' own products with weights in 4 bits, here in float32."""
    model = load_without_adapter(base, precision="4bit", device=device)
    keep_unpacked(model)
    module: Any
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float32
    return vectors(attach_adapter(model, adapter).eval(), target)


def _write_weights(model: Any, target: ModelDir, folder: Path, dtype: Dtype, max_shard_mib: float) -> Tensor:
    """Round and write the weights; return the fixed set's vectors under the rounded weights, computed in float32."""
    for key, value in matryoshka_keys(target).items():
        setattr(model.config, key, value)
    _cast_parameters(model, getattr(torch, dtype))
    # A file's header comes on top of its tensors.
    model.save_pretrained(folder, max_shard_size=int(max_shard_mib * 2**20) - 2**16)
    _cast_parameters(model, torch.float32)
    return vectors(model, target)


def _cast_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights alone: `Module.to` would round the rotary frequencies too, which are not shipped."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _read_back(folder: Path, device: str) -> Tensor:
    """Embed the fixed set with the written directory alone."""
    written = open_model_dir(folder)
    return vectors(load_without_adapter(written, device=device).eval(), written)


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """Give a hidden directory to fill that becomes `out` on success and vanishes on failure."""
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
