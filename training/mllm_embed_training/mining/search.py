"""The nearest of a corpus by FAISS: exact, piece by piece, so that memory does not grow with the corpus."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def nearest(
    queries: NDArray[np.float32], pieces: Iterable[NDArray[np.float32]], depth: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the corpus rows of greatest inner product: cosine, for unit vectors.

    Args:
        queries: float32, shape [Q, D].
        pieces: the corpus in order, each float32, shape [n, D]; one piece is in memory at a time.
        depth: how many to find.

    Returns:
        corpus rows, int64, best first, the earlier row first where scores are equal, and their scores, float32; both of
        shape [Q, K], where K is `depth` or the size of a smaller corpus.
    """
    import faiss

    best_rows = np.empty((len(queries), 0), dtype=np.int64)
    best_scores = np.empty((len(queries), 0), dtype=np.float32)
    start = 0
    for piece in pieces:
        found = faiss.knn(queries, piece, min(depth, len(piece)), metric=faiss.METRIC_INNER_PRODUCT)
        scores = np.concatenate([best_scores, found[0]], axis=1)
        rows = np.concatenate([best_rows, found[1].astype(np.int64) + start], axis=1)
        order = np.lexsort((rows, -scores), axis=1)[:, :depth]
        best_scores, best_rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
        start += len(piece)
    return best_rows, best_scores
