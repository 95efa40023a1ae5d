"""Regions, videos, documents: what they are written as gives the same vectors on both engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mllm_embed.embedder import Embedder
from mllm_embed.errors import InvalidInput
from mllm_embed.families import get_family
from mllm_embed.types import Document, Image, Region, RunLengths, SoftTokens, Video
from tests.library.test_documents import pdf

from .conftest import Engines, Pair
from .test_parity import SAME, cosines

pytestmark = pytest.mark.engine

Draw = Callable[..., PIL.Image.Image]


def regions(draw: Draw) -> list[Any]:
    """A picture of 96 x 80 pixels, and what is meant of it in every way."""
    photo = draw(1)
    rows = RunLengths((80, 96), (80 * 10, 80 * 40, 80 * 46))
    ways = (Region(point=(20, 60)), Region(box=(10, 5, 60, 40)), Region(mask=rows))
    return [*(Image(photo, way) for way in ways), ("before", Image(photo, ways[1]), "after")]


def several(engines: Engines) -> None:
    """Skip the test of a family of which vLLM takes one picture in an input."""
    if get_family(engines.family).vllm.max_images == 1:
        pytest.skip("vLLM takes one picture in an input of this family")


@pytest.mark.parametrize("tuning", ["base", "adapted"])
def test_regions(engines: Engines, tuning: str, draw: Draw) -> None:
    several(engines)
    pair: Pair = getattr(engines, tuning)
    ours, theirs = pair.transformers.embed(regions(draw)), pair.vllm.embed(regions(draw))
    assert min(cosines(ours, theirs)) >= SAME
    whole = pair.vllm.embed([draw(1)])
    assert max(cosines(theirs, whole)) < SAME  # a region that is not looked at would be noticed
    assert max(cosines(ours[:2], theirs[1:3])) < SAME  # and so would another region


def test_regions_need_two_pictures(engines: Engines, draw: Draw) -> None:
    if get_family(engines.family).vllm.max_images != 1:
        pytest.skip("vLLM takes several pictures in an input of this family")
    with pytest.raises(InvalidInput, match="vLLM reads at most 1 image"):
        engines.base.vllm.embed(regions(draw)[:1])


def test_videos_and_documents(engines: Engines, draw: Draw) -> None:
    several(engines)
    items: list[Any] = [(Video((draw(1), draw(2), draw(3)), frames=2), "what happens"), Document(pdf(0, 200))]
    ours, theirs = engines.base.transformers.embed(items), engines.base.vllm.embed(items)
    assert min(cosines(ours, theirs)) >= SAME
    assert max(cosines(ours, theirs[::-1])) < SAME


def test_times_of_frames(engines: Engines, draw: Draw) -> None:
    several(engines)
    clips = [(Video((draw(1), draw(2)), times=times), "what happens") for times in ((0.0, 1.5), (0.0, 9.5))]
    timed = [
        Embedder(each.model_dir.with_recipe(video="timed-frames"), each.backend)
        for each in (engines.base.transformers, engines.base.vllm)
    ]
    ours, theirs = (each.embed(clips) for each in timed)
    assert min(cosines(ours, theirs)) >= SAME
    assert max(cosines(ours, theirs[::-1])) < SAME  # times that are not read would be noticed


def test_vllm_refuses_soft_tokens(engines: Engines) -> None:
    item = ("before", SoftTokens(np.zeros((2, engines.base.vllm.dimensions), dtype=np.float32)))
    with pytest.raises(InvalidInput, match="vLLM reads token ids and pictures, not soft tokens") as caught:
        engines.base.vllm.embed(["x", item])
    assert caught.value.index == 1
    assert engines.base.transformers.embed([item]).shape == (1, engines.base.vllm.dimensions)
