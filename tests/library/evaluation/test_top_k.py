from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mllm_embed.evaluation import top_k as module
from mllm_embed.evaluation.top_k import read_blocks, top_k

pytestmark = pytest.mark.fast


def vectors(count: int, seed: int) -> NDArray[np.float32]:
    """Few different values, so that many products are equal."""
    return np.random.default_rng(seed).integers(-2, 3, (count, 6)).astype(np.float32)


def plain(queries: NDArray[np.float32], corpus: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    order: NDArray[np.int64] = np.argsort(-(queries @ corpus.T), axis=1, kind="stable")[:, :k]
    return order


@pytest.mark.parametrize("k", [1, 7, 300])
def test_it_is_a_plain_sort_ties_in_order(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    queries, corpus = vectors(25, 0), vectors(300, 1)
    monkeypatch.setattr(module, "_BLOCK", 16)
    monkeypatch.setattr(module, "_QUERY_BLOCK", 8)
    found = top_k(queries, [corpus[:100], corpus[100:101], corpus[101:]], k)
    expected = plain(queries, corpus, k)
    assert found.indices.tolist() == expected.tolist()
    assert found.scores.tolist() == np.take_along_axis(queries @ corpus.T, expected, 1).tolist()


@pytest.mark.parametrize(("k", "reason"), [(0, "at least 1, but is 0"), (5, "at most the number of candidates, 4")])
def test_k_must_fit(k: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        top_k(vectors(2, 0), [vectors(4, 1)], k)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_corpus_on_disk_is_read_in_blocks(tmp_path: Path, dtype: type) -> None:
    corpus: NDArray[np.floating] = vectors(50, 2).astype(dtype)
    np.save(tmp_path / "corpus.npy", corpus)
    blocks = list(read_blocks(tmp_path / "corpus.npy", rows=16))
    assert [len(block) for block in blocks] == [16, 16, 16, 2]
    assert {block.dtype for block in blocks} == {np.dtype(np.float32)}
    assert np.concatenate(blocks).tolist() == corpus.tolist()


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4), dtype=np.float32))
    with pytest.raises(ValueError, match=r"holds float32 \(2, 3, 4\)"):
        next(read_blocks(tmp_path / "x.npy"))
