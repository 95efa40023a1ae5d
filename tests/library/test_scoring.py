from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mllm_embed.errors import InvalidInput
from mllm_embed.scoring import maxsim, shared_words, sparse_dot

pytestmark = pytest.mark.fast


def multivectors(*lengths: int, width: int = 8, seed: int = 0) -> list[NDArray[np.float32]]:
    draws = np.random.default_rng(seed)
    rows = [draws.standard_normal((length, width), dtype=np.float32) for length in lengths]
    return [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]


def test_maxsim_is_the_sum_of_each_query_vectors_best_match() -> None:
    queries, documents = multivectors(3, 1, 7), multivectors(5, 2, 9, 1, seed=1)
    expected = [
        [sum(max(float(q @ d) for d in document) for q in query) for document in documents] for query in queries
    ]
    found = maxsim(queries, documents)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_input_scores_its_length_against_itself() -> None:
    (query,) = multivectors(6)
    assert maxsim([query], [query])[0, 0] == pytest.approx(6, abs=1e-5)


def test_a_document_that_repeats_itself_gains_nothing() -> None:
    query, document = multivectors(4, 5)
    once, twice = maxsim([query], [document, np.concatenate([document, document])])[0]
    assert once == pytest.approx(twice)


def test_no_queries_or_no_documents_are_no_scores() -> None:
    assert maxsim([], multivectors(2)).shape == (0, 1)
    assert maxsim(multivectors(2), []).shape == (1, 0)


@pytest.mark.parametrize(
    ("bad", "shape"), [(np.zeros((0, 8), np.float32), "0, 8"), (np.ones((2, 4), np.float32), "2, 4"), (np.ones(8), "8")]
)
def test_what_is_no_multivector_of_that_width_is_refused(bad: NDArray[np.float32], shape: str) -> None:
    message = rf"documents\[1\] must hold at least one vector of the width 8, but its shape is \[{shape}\]"
    with pytest.raises(InvalidInput, match=message):
        maxsim(multivectors(3), [*multivectors(2), bad])


def test_contributions_of_shared_words_sum_to_the_score_exactly() -> None:
    query = {"red": 1.7, "circle": 0.3, "cat": 2.0, "of": 0.1}
    document = {"circle": 1.1, "red": 0.9, "dog": 3.0, "of": 0.7}
    shared = shared_words(query, document)
    assert list(shared) == ["red", "circle", "of"]  # the greatest contribution first
    assert shared["red"] == 1.7 * 0.9
    assert sparse_dot(query, document) == math.fsum(shared.values())
    assert sparse_dot(query, document) == sparse_dot(document, query)


def test_nothing_in_common_scores_zero() -> None:
    assert sparse_dot({"red": 1.0}, {"blue": 1.0}) == 0
    assert shared_words({}, {"blue": 1.0}) == {}
