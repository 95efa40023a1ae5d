"""Vectors and GradCache gradients of VLM2Vec's own model code."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from parity import tiny_model
from parity.checkouts import Checkouts

Numbers = dict[str, NDArray[Any]]
CHUNKS = (3, 2)
"""GradCache's chunk sizes of queries and targets."""


def encoder_numbers(checkouts: Checkouts) -> Numbers:
    """Return weights, batches, and what VLM2Vec makes of them."""
    fork = tiny_model.build(tiny_model.fork_class(checkouts), None)
    weights = tiny_model.random_weights(fork)
    numbers: Numbers = {f"weights/{name}": values for name, values in weights.items()}
    numbers |= _rows("queries", seed=1, markers=False) | _rows("targets", seed=2, markers=False)
    numbers |= _rows("marked", seed=1, markers=True)
    for side in ("left", "right"):
        numbers[f"encode/{side}"] = _encode(checkouts, weights, side)
    numbers["encode/marked"] = _encode_marked(checkouts, weights)
    numbers |= _markers_in_the_fork(checkouts, weights)
    numbers |= _grad_cache(checkouts, weights)
    numbers |= _pooling(checkouts)
    return numbers


def mmeb_model(checkouts: Checkouts, encoder: nn.Module, *, normalize: bool) -> Any:
    """Wrap an encoder as VLM2Vec does."""
    wrapper = checkouts.vlm2vec_module("src.model.model").MMEBModel
    return wrapper(encoder, pooling="last", normalize=normalize, temperature=0.02)


def _rows(name: str, *, seed: int, markers: bool) -> Numbers:
    """Return a batch flattened: one byte per token and number, lengths beside them."""
    ids, patches = tiny_model.random_rows(seed, markers=markers)
    return {
        f"{name}/ids": np.array([token for row in ids for token in row], dtype=np.uint8),
        f"{name}/lengths": np.array([len(row) for row in ids], dtype=np.uint8),
        f"{name}/patches": np.concatenate([rows for rows in patches if rows is not None]),
        f"{name}/grids": np.array([grid or (0, 0) for _, grid in tiny_model.ROWS], dtype=np.uint8),
    }


def _encode(checkouts: Checkouts, weights: dict[str, NDArray[np.int8]], side: str) -> NDArray[np.float32]:
    model = mmeb_model(checkouts, tiny_model.build(tiny_model.fork_class(checkouts), weights), normalize=False)
    ids, patches = tiny_model.random_rows(1, markers=False)
    with torch.no_grad():
        vectors = model.encode_input(tiny_model.fork_inputs(*tiny_model.pad(ids, side), patches))
    return np.asarray(vectors.numpy())


def _encode_marked(checkouts: Checkouts, weights: dict[str, NDArray[np.int8]]) -> NDArray[np.float32]:
    """VLM2Vec's wrapper around transformers' own model, which sees the markers and uses M-RoPE."""
    model = mmeb_model(checkouts, tiny_model.build(tiny_model.stock_class(), weights), normalize=False)
    ids, patches = tiny_model.random_rows(1, markers=True)
    with torch.no_grad():
        vectors = model.encode_input(tiny_model.stock_inputs(*tiny_model.pad(ids, "left"), patches))
    return np.asarray(vectors.numpy())


def _markers_in_the_fork(checkouts: Checkouts, weights: dict[str, NDArray[np.int8]]) -> Numbers:
    """With markers the fork fails at its first call; once it has seen a batch without, it keeps to 1-D positions."""
    model = mmeb_model(checkouts, tiny_model.build(tiny_model.fork_class(checkouts), weights), normalize=False)
    marked, plain = (
        tiny_model.fork_inputs(*tiny_model.pad(ids, "left"), patches)
        for ids, patches in (tiny_model.random_rows(1, markers=markers) for markers in (True, False))
    )
    error = ""
    with torch.no_grad():
        try:
            model.encode_input(marked)
        except IndexError as raised:
            error = str(raised)
        model.encode_input(plain)
        vectors = model.encode_input(marked).numpy()
    return {"encode/marked fork, first call": np.array(error), "encode/marked fork, later call": vectors}


def _grad_cache(checkouts: Checkouts, weights: dict[str, NDArray[np.int8]]) -> Numbers:
    """One step of VLM2Vec's trainer as its constructor sets it up, on one process."""
    collator = checkouts.vlm2vec_module("src.data.collator.train_collator")
    model = mmeb_model(checkouts, tiny_model.build(tiny_model.fork_class(checkouts), weights), normalize=True)
    cache = checkouts.vlm2vec_module("src.grad_cache.grad_cache").GradCache(
        models=[model, model],
        chunk_sizes=list(CHUNKS),
        loss_fn=checkouts.vlm2vec_module("src.loss").SimpleContrastiveLoss(temperature=0.02),
        split_input_fn=collator.split_and_process_vlm_inputs,
        get_rep_fn=collator.get_dense_rep,
    )
    sides = []
    for seed in (1, 2):
        ids, patches = tiny_model.random_rows(seed, markers=False)
        sides.append(tiny_model.fork_inputs(*tiny_model.pad(ids, "left"), patches))
    loss = cache({"qry": sides[0]}, {"tgt": sides[1]})
    gradients = {f"grad cache/gradients/{name}": p.grad.numpy() for name, p in _with_gradient(model.encoder)}
    return {"grad cache/loss": np.array(float(loss)), "grad cache/chunks": np.array(CHUNKS), **gradients}


def _with_gradient(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, p) for name, p in model.named_parameters() if p.grad is not None]


def _pooling(checkouts: Checkouts) -> Numbers:
    """Pool random states under both paddings and without any."""
    numbers: Numbers = {}
    model = mmeb_model(checkouts, tiny_model.build(tiny_model.fork_class(checkouts), None), normalize=False)
    hidden = torch.from_numpy(np.random.default_rng(3).integers(-64, 64, (4, 7, 6)).astype(np.float32) / 64)
    numbers["pooling/hidden"] = hidden.numpy()
    lengths = {"left": [3, 7, 1, 5], "right": [3, 7, 1, 5], "none": [7, 7, 7, 7]}
    for side, counts in lengths.items():
        _, mask = tiny_model.pad([[1] * count for count in counts], side)
        numbers[f"pooling/{side}/mask"] = mask.numpy().astype(np.uint8)
        numbers[f"pooling/{side}/vectors"] = model._pooling(hidden, mask).numpy()  # noqa: SLF001  # no public way
    return numbers
