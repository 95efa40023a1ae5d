"""What two processes of the public code make of one batch: gloo, on this machine."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from parity.checkouts import Checkouts
from parity.encoder_numbers import Numbers
from parity.loss_numbers import MARGIN, TEMPERATURE, random_units

WORLD, ROWS, WIDTH = 2, 12, 6


def rank_numbers(checkouts: Checkouts) -> Numbers:
    """Return VLM2Vec's distributed loss and GradCache gradients, and UniME's distributed loss."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        spawn(_work, args=(port, checkouts, Path(folder)), nprocs=WORLD)
        ranks = [dict(np.load(Path(folder) / f"{rank}.npz")) for rank in range(WORLD)]
    if not np.allclose(ranks[0]["ranks/gradient"], ranks[1]["ranks/gradient"], rtol=1e-6):
        raise RuntimeError("the two processes ended with different gradients")
    queries, candidates = _inputs()
    return {"ranks/queries": queries, "ranks/candidates": candidates, "ranks/weight": _weight(), **ranks[0]}


def _inputs() -> tuple[np.ndarray, np.ndarray]:
    queries = random_units(41, ROWS, WIDTH)
    candidates = functional.normalize(queries + random_units(42, ROWS, WIDTH), dim=-1)
    return queries.numpy(), candidates.numpy()


def _weight() -> np.ndarray:
    return np.random.default_rng(43).uniform(-1, 1, (5, WIDTH)).astype(np.float32)


def _work(rank: int, port: int, checkouts: Checkouts, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    dist.init_process_group("gloo")
    own = slice(rank * ROWS // WORLD, (rank + 1) * ROWS // WORLD)
    queries, candidates = (torch.from_numpy(side[own]) for side in _inputs())
    numbers = {**_vlm2vec(checkouts, queries, candidates), **_unime(checkouts, queries, candidates)}
    np.savez(folder / f"{rank}.npz", **numbers)  # type: ignore[arg-type]  # numpy types its other keywords too
    dist.destroy_process_group()


def _encoder() -> nn.Module:
    encoder = nn.Linear(WIDTH, 5, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(torch.from_numpy(_weight()))
    return encoder


def _vlm2vec(checkouts: Checkouts, queries: torch.Tensor, candidates: torch.Tensor) -> Numbers:
    """The loss alone, and a GradCache step with it under DistributedDataParallel, as VLM2Vec's trainer runs it."""
    loss_of = checkouts.vlm2vec_module("src.loss").DistributedContrastiveLoss(temperature=TEMPERATURE)
    encoder = _encoder()
    model = DistributedDataParallel(encoder)
    cache = checkouts.vlm2vec_module("src.grad_cache.grad_cache").GradCache(
        [model, model], [2, 3], loss_of, get_rep_fn=lambda out: functional.normalize(out, dim=-1)
    )
    loss = cache(queries, candidates, no_sync_except_last=True)
    cached = next(encoder.parameters()).grad
    plain = _encoder()
    x, y = (functional.normalize(plain(side), dim=-1) for side in (queries, candidates))
    torch.autograd.backward(loss_of(x, y))
    own = next(plain.parameters()).grad
    if cached is None or own is None:
        raise RuntimeError("VLM2Vec's distributed loss gave no gradient")
    dist.all_reduce(own)  # what DistributedDataParallel does: the mean over the ranks
    return {
        "ranks/loss": loss.numpy() / WORLD,  # as its trainer logs it
        "ranks/gradient": own.numpy() / WORLD,
        "ranks/grad cache gradient": cached.numpy(),
    }


def _unime(checkouts: Checkouts, queries: torch.Tensor, candidates: torch.Tensor) -> Numbers:
    """UniME's distributed loss gathers without a graph, so nothing can be learned from it."""
    loss_of = checkouts.unime_loss().DistributedContrastiveLossBatchRank(
        temperature=TEMPERATURE, topk=4, threshold_value=MARGIN
    )
    plain = _encoder()
    loss = loss_of(*(functional.normalize(plain(side), dim=-1) for side in (queries, candidates)))
    try:
        loss.backward()
        error = ""
    except RuntimeError as refused:
        error = str(refused).splitlines()[0]
    return {"ranks/unime loss": loss.detach().numpy() / WORLD, "ranks/unime error": np.array(error)}
