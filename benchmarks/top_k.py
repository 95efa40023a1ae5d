"""Exact nearest neighbours: ours, block by block from disk, beside FAISS's flat index on the same cores.

    pip install faiss-cpu
    python benchmarks/top_k.py --corpus 1000000 --queries 10000 --dimensions 512

Each runs in a process of its own, so that the greatest memory of each is known. Ours reads the corpus from a file;
FAISS must hold it. Machines are noisy: compare only within one run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mllm_embed.evaluation.top_k import read_blocks, top_k

_CHUNK = 50_000


def main() -> None:
    """Write a random corpus, search it both ways, compare the answers, print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--k", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mllm-embed-") as folder:
        corpus, queries = Path(folder) / "corpus.npy", Path(folder) / "queries.npy"
        _write(corpus, options.corpus, options.dimensions, seed=0)
        _write(queries, options.queries, options.dimensions, seed=1)
        print(f"{options.corpus:,} x {options.queries:,}, {options.dimensions} dimensions, top {options.k}")
        print(f"{'':14} {'seconds':>8} {'peak MiB':>9}")
        found = {name: _measure(name, search, corpus, queries, options.k) for name, search in _SEARCHES.items()}
    same = float((found["mllm-embed"] == found["faiss flat"]).mean())
    print(f"{same:.4%} of the places hold the same candidate (float32 sums differ in order)")


def _write(file: Path, count: int, width: int, *, seed: int) -> None:
    """Write unit vectors; not through mapped memory, since a process inherits the peak of the one that starts it."""
    rng = np.random.default_rng(seed)
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, count, _CHUNK):
            block = rng.standard_normal((min(_CHUNK, count - start), width), dtype=np.float32)
            stream.write((block / np.linalg.norm(block, axis=1, keepdims=True)).data)


def _ours(corpus: Path, queries: Path, k: int) -> Any:
    return top_k(np.load(queries), read_blocks(corpus), k).indices


def _faiss(corpus: Path, queries: Path, k: int) -> Any:
    import faiss

    asked = np.load(queries)
    index = faiss.IndexFlatIP(asked.shape[1])
    for block in read_blocks(corpus):
        index.add(block)
    return index.search(asked, k)[1]


_SEARCHES: dict[str, Callable[[Path, Path, int], Any]] = {"mllm-embed": _ours, "faiss flat": _faiss}


def _measure(name: str, search: Callable[[Path, Path, int], Any], corpus: Path, queries: Path, k: int) -> Any:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, search, corpus, queries, k))
    process.start()
    theirs.close()
    found, seconds, peak = ours.recv()
    process.join()
    print(f"{name:14} {seconds:8.1f} {peak / 1024:9.0f}")
    return found


def _child(pipe: Any, search: Callable[[Path, Path, int], Any], corpus: Path, queries: Path, k: int) -> None:
    started = time.perf_counter()
    found = search(corpus, queries, k)
    pipe.send((found, time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


if __name__ == "__main__":
    main()
