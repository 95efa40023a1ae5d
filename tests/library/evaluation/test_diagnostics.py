import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mllm_embed.evaluation import diagnostics
from mllm_embed.vectors import finish

pytestmark = pytest.mark.fast


def spread(count: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    return finish(np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32))


def test_a_cone_is_narrow_or_not() -> None:
    everywhere = spread(500, 32)
    assert diagnostics.cone(everywhere) == pytest.approx(0, abs=0.01)
    narrow = finish(everywhere + 3 * everywhere[:1])
    assert diagnostics.cone(narrow) > 0.5
    assert diagnostics.cone(np.repeat(everywhere[:1], 5, 0)) == pytest.approx(1, abs=1e-6)


def test_the_cone_is_the_mean_of_all_pairs() -> None:
    few = spread(7, 4)
    pairs = [float(few[i] @ few[j]) for i in range(7) for j in range(7) if i != j]
    assert diagnostics.cone(few) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_uniformity_of_two_opposite_points() -> None:
    two = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    assert diagnostics.uniformity(two) == pytest.approx(-8)  # log exp(-2 * 4)


def test_alignment_and_gap() -> None:
    texts = np.tile(np.array([[1, 0]], dtype=np.float32), (3, 1))
    pictures = np.tile(np.array([[0, 1]], dtype=np.float32), (3, 1))
    assert diagnostics.alignment(texts, pictures) == pytest.approx(2)
    assert diagnostics.alignment(texts, texts) == 0
    assert diagnostics.modality_gap(texts, pictures) == pytest.approx(math.sqrt(2))
    assert diagnostics.modality_gap(texts, texts) == 0


def test_effective_rank_counts_directions() -> None:
    assert diagnostics.effective_rank(np.eye(5, dtype=np.float32)) == pytest.approx(5)
    assert diagnostics.effective_rank(np.tile(np.eye(5, dtype=np.float32)[:2], (9, 1))) == pytest.approx(2)


def test_a_hub_is_found_by_everything() -> None:
    queries, candidates = spread(300, 64), spread(100, 64, seed=1)
    without = diagnostics.hubness(queries, candidates)
    with_hub = candidates.copy()
    with_hub[7] = finish(queries.mean(0, keepdims=True))[0]
    toward = finish(queries + 0.5 * with_hub[7])
    assert diagnostics.hubness(toward, with_hub) > without + 1
    assert diagnostics.hubness(queries, candidates, neighbours=100) == 0  # all are found equally often
