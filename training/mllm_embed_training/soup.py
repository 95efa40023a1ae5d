"""Averages the weights of models that were tuned from one start: a model soup."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from mllm_embed.errors import IncompatibleCheckpoint, ModelError
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.loading import load_without_adapter
from mllm_embed_training.export_proof import check_written, least_cosine, vectors
from mllm_embed_training.model_writer import Dtype, all_or_nothing, read_back, weight_bytes, write_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn


@dataclass(frozen=True, slots=True)
class Souped:
    """A finished soup.

    Attributes:
        model_dir: the new directory, opened.
        shares: what each model weighed; they sum to 1.
        cosines: the least cosine of each model's vectors of the fixed set with the soup's, in the models' order.
        bytes: size of the weight files together.
    """

    model_dir: ModelDir
    shares: tuple[float, ...]
    cosines: tuple[float, ...]
    bytes: int


def soup(
    models: Sequence[ModelDir],
    out: Path,
    *,
    name: str,
    shares: Sequence[float] | None = None,
    dtype: Dtype = "bfloat16",
    max_shard_mib: float = 48,
    device: str = "cpu",
) -> Souped:
    """Write the model whose every weight is the weighted mean of the models' weights.

        theta = sum_m s_m theta_m / sum_m s_m

    Models that were tuned from one start with other data, batches or seeds mostly stay in one basin of the loss, where
    the mean keeps what each has learned; it costs no more to serve than one of them. Models with separate starts have
    no such mean: nothing here can tell but a score. Source: Wortsman et al. 2022 (arXiv:2203.05482); for embedders Xiao
    et al. 2023 (LM-Cocktail, arXiv:2311.13534).

    Args:
        models: complete directories (merged, as `export` writes them) that differ in weights and name alone.
        out: directory to make; must not exist, or be empty.
        name: model name in the API.
        shares: s_m >= 0, one per model, in any unit; default all equal.
        dtype: of the written weights; means are taken in float32.
        max_shard_mib: largest weight file.
        device: torch device to compute on.

    Raises:
        IncompatibleCheckpoint: an unmerged adapter, another recipe, tokenizer or shape of weights than the first's, or
            the written files do not give the mean's vectors; `out` is not made.
        ModelError: fewer than two models, shares that do not fit them, or `out` holds something already or could not be
            written.
    """
    parts = _normalised(shares, len(models))
    for model in models:
        _check_alike(models[0], model)
    target = models[0].with_recipe(name=name)
    with all_or_nothing(out) as folder:
        mean, alone = _mean(models, parts, device)
        mixed = vectors(mean, target)
        check_written(write_model(mean, target, folder, dtype, max_shard_mib), read_back(folder, device))
    cosines = tuple(least_cosine(one, mixed) for one in alone)
    return Souped(open_model_dir(out), parts, cosines, weight_bytes(out))


def _normalised(shares: Sequence[float] | None, models: int) -> tuple[float, ...]:
    """Return shares that sum to 1."""
    if models < 2:
        raise ModelError(f"a soup needs at least two models, but was given {models}")
    given = [1.0] * models if shares is None else list(shares)
    if len(given) != models:
        raise ModelError(f"a soup of {models} models needs {models} shares, but was given {len(given)}")
    if not all(share >= 0 and math.isfinite(share) for share in given) or not sum(given) > 0:
        raise ModelError(f"the shares must be finite, not negative and not all 0, but are {given}")
    return tuple(share / sum(given) for share in given)


def _check_alike(first: ModelDir, other: ModelDir) -> None:
    """Refuse a model whose mean with the first would mean nothing, as far as its directory tells."""
    if other.adapter is not None:
        raise IncompatibleCheckpoint(
            f"{other.path} holds an adapter, and the mean of two adapters' factors is not that of their products: "
            f"merge it first (mllm-embed export {other.path} OUT --dtype float32)"
        )
    ours, theirs = first.recipe, replace(other.recipe, name=first.recipe.name)
    if ours != theirs:
        keys = [key for key in ours.__dataclass_fields__ if getattr(ours, key) != getattr(theirs, key)]
        raise IncompatibleCheckpoint(f"{other.path} and {first.path} must have one recipe, but differ in {keys}")
    if other.tokenizer_file.read_bytes() != first.tokenizer_file.read_bytes():
        raise IncompatibleCheckpoint(f"{other.path} and {first.path} must have one tokenizer, but theirs differ")


@torch.no_grad()
def _mean(models: Sequence[ModelDir], shares: Sequence[float], device: str) -> tuple[Any, list[torch.Tensor]]:
    """Return the mean model, float32, and every model's own vectors; two models are in memory at a time."""
    mean = load_without_adapter(models[0], device=device).eval()
    alone = [vectors(mean, models[0])]
    total = dict(mean.named_parameters())
    for weight in total.values():
        weight.mul_(shares[0])
    for model_dir, share in zip(models[1:], shares[1:], strict=True):
        other = load_without_adapter(model_dir, device=device).eval()
        alone.append(vectors(other, model_dir))
        _check_shapes(models[0], total, model_dir, dict(other.named_parameters()))
        for key, weight in other.named_parameters():
            total[key].add_(weight, alpha=share)
        del other  # before the next one is loaded
    return mean, alone


def _check_shapes(
    first: ModelDir, ours: dict[str, nn.Parameter], other: ModelDir, theirs: dict[str, nn.Parameter]
) -> None:
    """Refuse weights of other names or shapes than the first model's."""
    shapes = {key: tuple(weight.shape) for key, weight in ours.items()}
    found = {key: tuple(weight.shape) for key, weight in theirs.items()}
    differing = sorted(key for key in shapes.keys() | found.keys() if shapes.get(key) != found.get(key))
    if differing:
        raise IncompatibleCheckpoint(
            f"{other.path} and {first.path} must have weights of the same names and shapes, but {len(differing)} "
            f"differ, the first of them {differing[0]}"
        )
