"""GradCache: a contrastive step whose memory does not grow with the batch, and whose gradient is the plain step's.

The loss needs all vectors of a batch at once, but the gradient of a vector with respect to the weights needs its own
chunk only (chain rule). So: encode all chunks without a graph, take the gradient of the loss with respect to the
vectors (tiny), then encode each chunk again with a graph and push its part of that gradient into the weights.
Source: Gao et al. 2021 (arXiv:2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Chunk = TypeVar("Chunk")
FEW = 16
"""Chunks of a step, both sides together, up to which encoding one of them once instead of twice is worth its memory."""


@dataclass(frozen=True, slots=True)
class _RngState:
    """States of torch's generators: the CPU's, and every CUDA device's once CUDA is in use."""

    cpu: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls) -> _RngState:
        on_cuda = torch.cuda.is_initialized()
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state_all() if on_cuda else [])

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Go back to this state inside the block, and to the present one after it."""
        with torch.random.fork_rng(devices=range(len(self.cuda))):
            torch.set_rng_state(self.cpu)
            torch.cuda.set_rng_state_all(self.cuda)
            yield


def grad_cache_step(
    encode: Callable[[Chunk], Tensor],
    query_chunks: Sequence[Chunk],
    candidate_chunks: Sequence[Chunk],
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    *,
    scale: float = 1.0,
    idle: int = 0,
) -> Tensor:
    """Add the gradient of a contrastive loss to the weights, holding the graph of one chunk at a time.

    The result equals that of encoding every chunk with a graph, in order, queries first: the random state in front of
    each chunk is replayed, so dropout drops the same numbers, and the generators end where that step leaves them.
    With one chunk per side both graphs are kept from the first pass, which is the plain step. Of up to `FEW` chunks the
    last one's is, so that it is not encoded twice; of more none is, so that the loss has that memory for itself.

    Args:
        encode: one chunk -> vectors [chunk, D], with a graph to the trainable weights where gradients are enabled. A
            chunk may lack pictures, or differ from the others in size.
        query_chunks: at least one.
        candidate_chunks: at least one.
        loss_fn: all queries [Q, D] and candidates [C, D], in the order of the chunks -> a scalar. Called once, and
            dropped before chunks are encoded again.
        scale: the gradient is multiplied by it (gradient accumulation, data parallelism); the returned loss is not.
        idle: passes in front of the others that nothing is learned from: ranks that spread a model's weights among them
            must make equally many.

    Returns:
        the loss, a scalar without graph.

    Raises:
        ValueError: one side has no chunks.
    """
    if not query_chunks or not candidate_chunks:
        raise ValueError(
            "GradCache needs at least one chunk per side, "
            f"but got {len(query_chunks)} of queries and {len(candidate_chunks)} of candidates"
        )
    chunks = [*idle * [query_chunks[0]], *query_chunks, *candidate_chunks]
    replays = len(chunks) - _kept(len(chunks))
    states: list[_RngState] = []
    vectors: list[Tensor] = []
    with torch.no_grad():
        for chunk in chunks[:replays]:
            states.append(_RngState.now())
            vectors.append(encode(chunk))
    held = [encode(chunk) for chunk in chunks[replays:]]

    vectors += [vector.detach() for vector in held]
    loss, gradients = _of_vectors(loss_fn, vectors[idle:], len(query_chunks), scale)
    gradients = [*map(torch.zeros_like, vectors[:idle]), *gradients]
    del vectors, loss_fn  # and with it what it holds of all pairs

    if held:
        torch.autograd.backward(held, gradients[replays:])
        del held
    for chunk, state, gradient in zip(chunks[:replays], states, gradients, strict=False):
        with state.replayed():
            torch.autograd.backward(encode(chunk), gradient)
    return loss


def _of_vectors(
    loss_fn: Callable[[Tensor, Tensor], Tensor], vectors: list[Tensor], queries: int, scale: float
) -> tuple[Tensor, list[Tensor]]:
    """Return the loss, without graph, and for each chunk's vectors the gradient of `scale` times it.

    Args:
        loss_fn: as for `grad_cache_step`.
        vectors: of each chunk, [chunk, D].
        queries: how many of the chunks are queries'.
        scale: as for `grad_cache_step`.
    """
    sides = (vectors[:queries], vectors[queries:])
    leaves = [torch.cat(side).requires_grad_() for side in sides]
    loss = loss_fn(*leaves)
    gradients = torch.autograd.grad(loss * scale, leaves)
    of_chunks = [of.split([len(chunk) for chunk in side]) for side, of in zip(sides, gradients, strict=True)]
    return loss.detach(), [part for parts in of_chunks for part in parts]


def _kept(chunks: int) -> int:
    """Of how many chunks, the last ones, the graph is kept from the first pass."""
    if chunks == 2:
        return 2
    return 1 if chunks <= FEW else 0
