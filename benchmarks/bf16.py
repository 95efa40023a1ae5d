"""Whether this machine's processor computes in bfloat16, or emulates it: the rate of a matrix product by type.

    OMP_NUM_THREADS=1 python benchmarks/bf16.py

`mllm-embed train` asks the same question, without measuring, where a recipe says `bf16: auto`.
"""

from __future__ import annotations

import time

import torch

from mllm_embed_training.device import computes_in_bf16

ROWS, INNER, COLUMNS = 4096, 320, 896
"""Of the two factors: a batch's tokens, and the feed-forward layer of mllm-embed-mini."""
ROUNDS = 20


def main() -> None:
    """Print a line per type, the best of some rounds, and what `auto` takes."""
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(ROWS, INNER, dtype=dtype), torch.ones(INNER, COLUMNS, dtype=dtype)
        best = min(_seconds(left, right) for _ in range(ROUNDS))
        print(f"{str(dtype).removeprefix('torch.'):9} {2 * ROWS * INNER * COLUMNS / best / 1e9:8.1f} GFLOP/s")
    print(f"auto takes {'bfloat16' if computes_in_bf16('auto', torch.device('cpu')) else 'float32'}")


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.matmul(left, right)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
