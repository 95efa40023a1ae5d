"""Multivectors and words are the same on both engines, and asking for them leaves the dense vector as it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest

from mllm_embed.types import Outputs

from .conftest import Engines
from .test_parity import SAME, mixed

pytestmark = pytest.mark.engine

ALL = Outputs(multivector=True, lexical=24)

Draw = Callable[..., PIL.Image.Image]


@pytest.mark.parametrize("tuning", ["base", "adapted"])
def test_both_engines_give_the_same_multivectors(engines: Engines, tuning: str, draw: Draw) -> None:
    pair, items = getattr(engines, tuning), mixed(draw, engines)
    left = pair.transformers.embed_outputs(list(items.values()), ALL)
    right = pair.vllm.embed_outputs(list(items.values()), ALL)
    for name, ours, theirs in zip(items, left, right, strict=True):
        assert ours.multivector.shape == theirs.multivector.shape, name
        assert (ours.multivector * theirs.multivector).sum(axis=1).min() >= SAME, name


@pytest.mark.parametrize("tuning", ["base", "adapted"])
def test_both_engines_give_the_same_words(engines: Engines, tuning: str, draw: Draw) -> None:
    pair, items = getattr(engines, tuning), mixed(draw, engines)
    left = pair.transformers.embed_outputs(list(items.values()), ALL)
    right = pair.vllm.embed_outputs(list(items.values()), ALL)
    for name, ours, theirs in zip(items, left, right, strict=True):
        assert ours.lexical == pytest.approx(theirs.lexical, abs=1e-3), name
        assert list(ours.lexical.values()) == sorted(ours.lexical.values(), reverse=True)


@pytest.mark.parametrize("kind", ["transformers", "vllm"])
@pytest.mark.parametrize("wanted", [Outputs(lexical=5), Outputs(multivector=True), ALL], ids=str)
def test_the_dense_vector_has_the_same_bits_whatever_else_is_wanted(
    engines: Engines, kind: str, wanted: Outputs, draw: Draw
) -> None:
    embedder = getattr(engines.tuned or engines.base, kind)
    for name, item in mixed(draw, engines).items():
        (alone,) = embedder.embed([item])
        (beside,) = embedder.embed_outputs([item], wanted)
        assert np.array_equal(alone, beside.vector), name


def test_the_states_of_other_tokens_would_be_noticed(engines: Engines, draw: Draw) -> None:
    """One token more before a picture moves every state behind it."""
    image = draw(1)
    (straight,) = engines.base.transformers.embed_outputs([(image, "after")], ALL)
    (shifted,) = engines.base.vllm.embed_outputs([("x", image, "after")], ALL)
    assert straight.multivector is not None
    assert shifted.multivector is not None
    same = (straight.multivector * shifted.multivector[: len(straight.multivector)]).sum(axis=1)
    assert same.min() < SAME
