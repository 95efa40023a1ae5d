"""transformers and vLLM give the same vectors, and the comparison would notice if they did not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from mllm_embed.errors import InvalidInput
from mllm_embed.families import get_family
from mllm_embed.types import EmbedInput

from .conftest import Engines, Pair

pytestmark = pytest.mark.engine

SAME = 0.9999
"""Cosine from which two vectors count as the same."""

Draw = Callable[..., PIL.Image.Image]


def mixed(draw: Draw, engines: Engines) -> dict[str, Any]:
    """Inputs of all kinds, with pictures of different sizes; several in one only where vLLM takes them."""
    a, b = draw(1), draw(2, 150, 60)
    several = {"two images": (a, b), "two images, other order": (b, a)}
    return {
        **({} if get_family(engines.family).vllm.max_images == 1 else several),
        "text": "a red cat",
        "long text": "a picture of the same thing, with a change applied " * 4,
        "image": a,
        "image and text": (a, "what is it"),
        "image in the middle": ("before the picture", a, "after the picture"),
        "tall image": draw(3, 40, 200),
    }


def cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((left * right).sum(axis=1))


@pytest.mark.parametrize("tuning", ["base", "tuned"])
def test_both_engines_give_the_same_vectors(engines: Engines, tuning: str, draw: Draw) -> None:
    pair: Pair = engines.base if tuning == "base" else engines.adapted
    items = mixed(draw, engines)
    similarity = cosines(pair.transformers.embed(list(items.values())), pair.vllm.embed(list(items.values())))
    assert min(similarity) >= SAME, dict(zip(items, similarity, strict=True))


def test_both_engines_count_the_same_tokens(engines: Engines, draw: Draw) -> None:
    inputs = [EmbedInput.of(*(item if isinstance(item, tuple) else (item,))) for item in mixed(draw, engines).values()]
    counts = [
        [embedding.tokens for embedding in embedder._own_loop().run(embedder.aembed(inputs))]
        for embedder in (engines.base.transformers, engines.base.vllm)
    ]
    assert counts[0] == counts[1]


def test_the_adapter_changes_every_vector_on_both_engines(engines: Engines, draw: Draw) -> None:
    items = list(mixed(draw, engines).values())
    for kind in ("transformers", "vllm"):
        base, tuned = getattr(engines.base, kind).embed(items), getattr(engines.adapted, kind).embed(items)
        assert max(cosines(base, tuned)) < 0.99, kind


def test_a_missing_adapter_would_be_noticed(engines: Engines, draw: Draw) -> None:
    items = list(mixed(draw, engines).values())
    assert max(cosines(engines.adapted.transformers.embed(items), engines.base.vllm.embed(items))) < SAME


def test_swapped_images_would_be_noticed(engines: Engines, draw: Draw) -> None:
    if get_family(engines.family).vllm.max_images == 1:
        pytest.skip("vLLM takes one picture in an input of this family")
    a, b = draw(1), draw(2, 150, 60)
    straight, swapped = engines.base.transformers.embed([(a, b)]), engines.base.vllm.embed([(b, a)])
    assert cosines(straight, swapped)[0] < SAME


def test_shifted_positions_would_be_noticed(engines: Engines, draw: Draw) -> None:
    """The text after a picture is one place further when one more (neutral) token stands before it."""
    image = draw(1)
    straight, shifted = (
        engines.base.transformers.embed([("x", image, "after")]),
        engines.base.vllm.embed([(image, "x", "after")]),
    )
    assert cosines(straight, shifted)[0] < SAME


@pytest.mark.parametrize("kind", ["transformers", "vllm"])
def test_a_mixed_batch_equals_one_by_one(engines: Engines, kind: str, draw: Draw) -> None:
    embedder = getattr(engines.tuned or engines.base, kind)
    items = list(mixed(draw, engines).values())
    single = np.concatenate([embedder.embed([item]) for item in items])
    assert np.abs(embedder.embed(items) - single).max() <= 1e-5


@pytest.mark.parametrize("kind", ["transformers", "vllm"])
def test_one_image_under_two_instructions_gives_two_vectors(engines: Engines, kind: str, draw: Draw) -> None:
    embedder = getattr(engines.base, kind)
    image = draw(1)
    colour, shape = (embedder.embed([image], instruction=text) for text in ("find the colour", "find the thing"))
    assert cosines(colour, shape)[0] < 0.999
    again = embedder.embed([image], instruction="find the colour")
    assert cosines(colour, again)[0] >= SAME


def test_more_pictures_than_the_family_takes_on_vllm_are_refused(engines: Engines, draw: Draw) -> None:
    if get_family(engines.family).vllm.max_images != 1:
        pytest.skip("vLLM reads several pictures as this family does")
    with pytest.raises(InvalidInput, match="vLLM reads at most 1 image") as caught:
        engines.base.vllm.embed(["x", (draw(1), draw(2))])
    assert caught.value.index == 1
    assert engines.base.transformers.embed([(draw(1), draw(2))]).shape == (1, engines.base.vllm.dimensions)
