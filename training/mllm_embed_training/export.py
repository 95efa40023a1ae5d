"""Base + adapter -> one complete model directory, proved to give the trained model's vectors, or nothing at all."""

from __future__ import annotations

import gc
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.loading import attach_adapter, keep_unpacked, load_without_adapter
from mllm_embed_training.export_proof import (
    Proof,
    check_effect,
    check_merged,
    check_written,
    fixed_set,
    least_cosine,
    vectors,
)
from mllm_embed_training.model_writer import Dtype, all_or_nothing, read_back, weight_bytes, write_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn

logger = logging.getLogger(__name__)


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
    with all_or_nothing(out) as folder:
        model = load_without_adapter(base, device=device).eval()
        before = vectors(model, target)
        unmerged, merged_cosine, effect = before, 1.0, None
        if adapter is not None:
            model, unmerged = _merge(model, adapter, target)
            if base.recipe.quantization is not None:
                unmerged = _vectors_in_four_bits(base, adapter, target, device)
            effect = check_effect(before, unmerged)
            merged_cosine = check_merged(before, unmerged, vectors(model, target))
        meant = write_model(model, target, folder, dtype, max_shard_mib)
        del model
        gc.collect()
        written = read_back(folder, device)
        check_written(meant, written)
    proof = Proof(len(fixed_set()), merged_cosine, effect, least_cosine(unmerged, written))
    logger.info("%s: merged cosine %.7f, %s cosine %.7f", out, merged_cosine, dtype, proof.rounded_cosine)
    return Exported(open_model_dir(out), proof, weight_bytes(out))


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
