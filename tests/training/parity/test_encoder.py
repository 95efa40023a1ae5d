"""Vectors, pooling and GradCache gradients of VLM2Vec's model code, from its weights in the form it publishes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import ModelInputs
from mllm_embed.modeling.loading import load_base
from mllm_embed.modeling.pooling import last_token
from mllm_embed_training.grad_cache import grad_cache_step
from mllm_embed_training.losses import info_nce
from tests.training.parity.conftest import Golden, agree, difference

VECTORS, LOSS, GRADIENTS = 1e-5, 1e-6, 1e-5
"""Relative tolerances, float32."""
IMAGE = 113


@pytest.fixture(scope="module")
def model(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """The public weights in our model, through the loader that everybody uses."""
    path = tmp_path_factory.mktemp("vlm2vec")
    (path / "config.json").write_text(golden.text("config"))
    weights = {name: values.float() / 64 for name, values in golden.under("weights/").items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return load_base(path)


def batch(golden: Golden, name: str, side: str, rows: slice = slice(None)) -> ModelInputs:
    """Rows of a stored batch as our model takes them, padded as the whole batch is."""
    lengths = golden[f"{name}/lengths"].tolist()
    width = max(lengths)
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    for index, row in enumerate(golden[f"{name}/ids"].long().split(lengths)):
        where = slice(width - len(row), width) if side == "left" else slice(len(row))
        ids[index, where] = row
        mask[index, where] = 1
    counts = golden[f"{name}/grids"].long().prod(dim=1).tolist()
    patches = golden[f"{name}/patches"].float().split(counts)[rows]
    grids = [[1, *grid] for grid in golden[f"{name}/grids"].tolist()[rows] if sum(grid)]
    inputs = {"input_ids": ids[rows], "attention_mask": mask[rows]}
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()
    pictures = {"pixel_values": torch.cat(patches) / 64, "image_grid_thw": torch.tensor(grids)} if grids else {}
    return {**inputs, **pictures}


def straight(inputs: ModelInputs) -> ModelInputs:
    """Number the tokens from left to right, as VLM2Vec does, whose prompts have no vision markers."""
    rows, width = inputs["input_ids"].shape
    return {**inputs, "position_ids": torch.arange(width).expand(3, rows, width)}


@pytest.mark.parametrize("side", ["left", "right"])
def test_vectors_are_those_of_encode_input(model: nn.Module, golden: Golden, side: str) -> None:
    with torch.no_grad():
        ours = encode(model, straight(batch(golden, "queries", side)))
    for number, (row, theirs) in enumerate(zip(ours, golden[f"encode/{side}"], strict=True)):
        agree(f"vector {number}, padded {side}", row, theirs, VECTORS)


def test_with_vision_markers_vectors_are_those_of_m_rope(model: nn.Module, golden: Golden) -> None:
    """VLM2Vec's wrapper around the stock model; our templates have the markers."""
    with torch.no_grad():
        ours = encode(model, batch(golden, "marked", "left"))
    for number, (row, theirs) in enumerate(zip(ours, golden["encode/marked"], strict=True)):
        agree(f"vector {number}, vision markers", row, theirs, VECTORS)


@pytest.mark.parametrize("name", ["queries", "marked"])
def test_position_modes_are_told_apart(model: nn.Module, golden: Golden, name: str) -> None:
    """Otherwise the two tests above would pass with either."""
    inputs = batch(golden, name, "left")
    with torch.no_grad():
        moved = [difference(a, b) for a, b in zip(encode(model, inputs), encode(model, straight(inputs)), strict=True)]
    pictures = [bool(sum(grid)) for grid in golden[f"{name}/grids"].tolist()]
    assert all((shift > 100 * VECTORS) == picture for shift, picture in zip(moved, pictures, strict=True))


@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_pooling_takes_the_same_tokens(golden: Golden, side: str) -> None:
    ours = last_token(golden["pooling/hidden"], golden[f"pooling/{side}/mask"].long())
    assert torch.equal(ours, golden[f"pooling/{side}/vectors"])


def test_every_gradient_of_a_cached_step_is_theirs(model: nn.Module, golden: Golden) -> None:
    """Full tuning of all weights, chunks of 3 and 2; one of them has no picture."""
    queries, targets = (
        [straight(batch(golden, name, "left", slice(start, start + size))) for start in range(0, 8, size)]
        for name, size in zip(("queries", "targets"), golden["grad cache/chunks"].tolist(), strict=True)
    )
    assert any("pixel_values" not in chunk for chunk in targets)
    model.zero_grad()
    loss = grad_cache_step(
        lambda chunk: encode(model, chunk),
        queries,
        targets,
        lambda q, c: info_nce(q, c, torch.arange(8), temperature=0.02),
    )
    agree("cached loss", loss, golden["grad cache/loss"].float(), LOSS)
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    theirs = golden.under("grad cache/gradients/")
    assert len(ours) == len(theirs) == len(list(model.parameters())) - 1, "all but the language-model head"
    for name, gradient in theirs.items():
        agree(f"cached gradient of {name}", ours[ours_of(name)], gradient, GRADIENTS)


def ours_of(name: str) -> str:
    """The name that transformers 5 gives to a weight of a published checkpoint."""
    return f"model.{name}" if name.startswith("visual.") else name.replace("model.", "model.language_model.", 1)


def test_deviation_markers_mean_m_rope_at_every_call(model: nn.Module, golden: Golden) -> None:
    """VLM2Vec's fork fails on them at its first call, and keeps to 1-D positions once it has seen a batch without."""
    assert "out of bounds" in golden.text("encode/marked fork, first call")
    theirs = golden["encode/marked fork, later call"]
    assert difference(theirs, golden["encode/marked"]) > 100 * VECTORS
    with torch.no_grad():
        agree("vectors with markers, 1-D", encode(model, straight(batch(golden, "marked", "left"))), theirs, VECTORS)
        encode(model, batch(golden, "queries", "left"))
        agree("vectors with markers", encode(model, batch(golden, "marked", "left")), golden["encode/marked"], VECTORS)


def test_the_numbers_say_where_they_come_from(golden: Golden) -> None:
    made_with = json.loads(golden.text("made with"))
    assert {"VLM2Vec", "UniME", "GradCache", "transformers", "torch", "numpy"} == set(made_with)
    assert Path(__file__).with_name("golden.npz").stat().st_size <= 300_000
    assert all(np.isfinite(array).all() for array in golden.arrays.values() if array.dtype.kind == "f")
