"""The exact nearest candidates of every query, with bounded memory, whatever the size of the corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_BLOCK = 8192
_QUERY_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class TopK:
    """The nearest candidates of each query, best first; of equal scores the earlier candidate stands first.

    Attributes:
        scores: dot products, float32, shape [Q, k].
        indices: positions in the corpus, int64, shape [Q, k].
    """

    scores: NDArray[np.float32]
    indices: NDArray[np.int64]


def top_k(queries: NDArray[np.float32], blocks: Iterable[NDArray[np.float32]], k: int) -> TopK:
    """Find the k candidates with the highest dot products, exactly.

    Memory is the queries, one block and its products with 2,048 queries, and the result; the corpus may be larger than
    memory (see `read_blocks`). After the first blocks few candidates beat a query's k-th best so far, so selecting
    costs one comparison per product.

    Args:
        queries: float32, shape [Q, D].
        blocks: the corpus in order, float32 arrays of shape [n, D].
        k: candidates wanted per query.

    Raises:
        ValueError: k below 1, or more than there are candidates.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, but is {k}")
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    indices = np.full((len(queries), k), -1, dtype=np.int64)
    start = 0
    for block in blocks:
        for first in range(0, len(block), _BLOCK):
            _merge(queries, block[first : first + _BLOCK], start + first, scores, indices)
        start += len(block)
    if start < k:
        raise ValueError(f"k must be at most the number of candidates, {start}, but is {k}")
    return TopK(scores, indices)


def read_blocks(file: Path, rows: int = 65_536) -> Iterator[NDArray[np.float32]]:
    """Read a `.npy` file of float32 or float16 vectors, shape [N, D], a block at a time and never as a whole.

    Args:
        file: written by `numpy.save`, in C order.
        rows: vectors per block.

    Raises:
        ValueError: another kind of array.
    """
    header = np.load(file, mmap_mode="r")
    if header.ndim != 2 or not header.flags.c_contiguous or header.dtype not in (np.float32, np.float16):
        kind = f"{header.dtype} {header.shape}"
        raise ValueError(f"{file} must hold float32 or float16 vectors in C order, but holds {kind}")
    (count, width), dtype = header.shape, header.dtype
    with file.open("rb") as stream:  # mapped pages would count as this process's memory until the system takes them
        stream.seek(header.offset)
        for first in range(0, count, rows):
            wanted = min(rows, count - first)
            block = np.fromfile(stream, dtype, wanted * width).reshape(wanted, width)
            yield block.astype(np.float32, copy=False)


def _merge(
    queries: NDArray[np.float32],
    block: NDArray[np.float32],
    start: int,
    best: NDArray[np.float32],
    indices: NDArray[np.int64],
) -> None:
    """Take into `best` and `indices`, in place, what this block holds."""
    k = best.shape[1]
    for first in range(0, len(queries), _QUERY_BLOCK):
        rows = slice(first, first + _QUERY_BLOCK)
        products = queries[rows] @ block.T  # [q, n]
        better = products > best[rows, -1:]
        for row in np.flatnonzero(better.any(axis=1)):
            found = np.flatnonzero(better[row])
            scores = np.concatenate([best[first + row], products[row, found]])
            places = np.concatenate([indices[first + row], found + start])
            if len(scores) > 4 * k:
                kept = _largest(scores, k)
                scores, places = scores[kept], places[kept]
            order = np.lexsort((places, -scores))[:k]
            best[first + row], indices[first + row] = scores[order], places[order]


def _largest(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions of the k largest scores and of all that equal the k-th, so that ties stay in order."""
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= least)
