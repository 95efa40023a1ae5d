"""How much of a teacher's distribution over a batch each text has itself, which UniME's formula leaves in it.

    python benchmarks/teacher_share.py runs/teacher.parquet

What is left for the other texts is all that distillation can teach (`losses.similarity_distillation`). Means over the
texts of some random batches of what `mllm-embed teach` wrote, seed 0; `nearest other` is a cosine.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow.parquet as pq

TEMPERATURES = (0.02, 0.05, 0.1)


def main() -> None:
    """Print a row per temperature."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", help="parquet with a column vector")
    parser.add_argument("--batch", type=int, default=256, help="texts per batch")
    parser.add_argument("--batches", type=int, default=10)
    options = parser.parse_args()
    rows = pq.read_table(options.vectors, columns=["vector"])["vector"].combine_chunks()
    vectors = rows.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
    rng = np.random.default_rng(0)
    drawn = [vectors[rng.choice(len(vectors), options.batch, replace=False)] for _ in range(options.batches)]
    units = [batch / np.linalg.norm(batch, axis=1, keepdims=True) for batch in drawn]
    cosines = [batch @ batch.T for batch in units]
    nearest = np.mean([np.where(np.eye(len(square)), -1, square).max(axis=1) for square in cosines])
    print("| temperature | own share | nearest other |\n| ---: | ---: | ---: |")
    for temperature in TEMPERATURES:
        weights = [np.exp((square - 1) / temperature) for square in cosines]
        own = np.mean([square.diagonal() / square.sum(axis=1) for square in weights])
        print(f"| {temperature} | {own:.4f} | {nearest:.2f} |")


if __name__ == "__main__":
    main()
