"""Several processes that train as one: what is gathered, what is summed, and who writes.

Started by `torchrun` or `accelerate launch`, which set the variables that `joined` reads. Every rank takes its share of
the step's examples, sees the vectors of all, computes the loss of the whole batch, and keeps the gradient of its own
vectors; the ranks' gradients are then summed. So two ranks of B / 2 examples make the step of one rank with B, exactly:
nothing is averaged, scaled back or detached on the way. Weights are summed after the last chunk, so a chunk without
pictures, or a rank without any, needs no special care, as it would under DistributedDataParallel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from mllm_embed_training.errors import TrainingFailed


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes for the block, if a launcher started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def count() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number; 0 writes checkpoints and shows progress."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(examples: int) -> slice:
    """Return which of a step's examples are this rank's.

    Raises:
        TrainingFailed: the ranks do not divide the examples.
    """
    if examples % count():
        raise TrainingFailed(f"data.batch_size must be a multiple of the {count()} processes, but is {examples}")
    size = examples // count()
    return slice(rank() * size, (rank() + 1) * size)


def gather(rows: Tensor) -> Tensor:
    """Return the rows of all ranks, in their order; the gradient flows into this rank's own rows only.

    Args:
        rows: shape [N, ...]; N may differ between ranks.

    Returns:
        shape [sum of N, ...].
    """
    if count() == 1:
        return rows
    sizes = _numbers(len(rows))
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = _gather_equal(padded)
    return torch.cat(
        [rows if i == rank() else part[:size] for i, (part, size) in enumerate(zip(parts, sizes, strict=True))]
    )


def first_row(rows: Tensor) -> int:
    """Return where this rank's rows begin among the gathered ones."""
    return sum(_numbers(len(rows))[: rank()])


def total(number: float) -> float:
    """Return the sum of every rank's number."""
    if count() == 1:
        return number
    summed = torch.tensor([number], dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(summed)
    return float(summed)


def most(number: int) -> int:
    """Return the largest of every rank's numbers."""
    return max(_numbers(number))


def collect(texts: Sequence[str]) -> list[str]:
    """Return every rank's texts, in the order of the ranks."""
    if count() == 1:
        return list(texts)
    parts: list[Any] = [None] * count()
    dist.all_gather_object(parts, list(texts))
    return [text for part in parts for text in part]


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by the sum over the ranks; absent ones count as zero."""
    if count() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


def wait() -> None:
    """Wait until every rank is here."""
    if count() > 1:
        dist.barrier()


def any_rank(flag: bool) -> bool:
    """Return whether the flag is set on any rank, so that all decide alike."""
    return total(float(flag)) > 0


def _numbers(number: int) -> list[int]:
    """Return every rank's number."""
    if count() == 1:
        return [number]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return [int(one) for one in _gather_equal(torch.tensor([number], device=device))]


def _gather_equal(tensor: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(tensor) for _ in range(count())]
    dist.all_gather(parts, tensor.contiguous())
    return parts
