"""Numbers that the public code of VLM2Vec, UniME and GradCache gave; `python -m parity` made them (docs/parity.md)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor


class Golden:
    """The stored arrays, by name."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.arrays = arrays

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Return all numbers whose name begins so, without the prefix."""
        chosen = {name: array for name, array in self.arrays.items() if name.startswith(prefix)}
        return {name.removeprefix(prefix): self[name] for name, array in chosen.items() if array.dtype.kind != "U"}

    def text(self, name: str) -> str:
        return str(self.arrays[name])


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Norm of the difference, relative to theirs."""
    assert ours.shape == theirs.shape
    assert theirs.norm() > 0
    return float((ours - theirs).norm() / theirs.norm())


def agree(what: str, ours: Tensor, theirs: Tensor, limit: float) -> None:
    """Compare, and tell by how much they differ: `pytest --log-cli-level=INFO` shows it."""
    found = difference(ours.detach(), theirs)
    logging.getLogger("parity").info("%s: relative difference %.1e, at most %.0e allowed", what, found, limit)
    assert found <= limit, what


@pytest.fixture(scope="session")
def golden() -> Golden:
    with np.load(Path(__file__).with_name("golden.npz")) as stored:
        return Golden(dict(stored))
