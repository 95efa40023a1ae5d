"""Two gloo processes: the loss and gradient of VLM2Vec's distributed loss, and a gradient where UniME's has none."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from mllm_embed_training import ranks
from mllm_embed_training.grad_cache import grad_cache_step
from mllm_embed_training.losses import info_nce
from mllm_embed_training.objective import LossSection, Targets
from tests.training.parity.conftest import Golden, agree

WORLD, ROWS = 2, 12
LOSS, GRADIENTS = 1e-6, 1e-5
UNIME = LossSection.model_validate({"info_nce": {"symmetric": False, "false_negative_margin": 0.1, "hardest": 4}})


def vlm2vec(queries: Tensor, candidates: Tensor) -> Tensor:
    return info_nce(queries, candidates, torch.arange(len(queries)), temperature=0.02)


def unime(queries: Tensor, candidates: Tensor) -> Tensor:
    labels = torch.arange(len(queries))
    return UNIME.value(queries, candidates, Targets(labels, torch.zeros(len(labels), len(labels), dtype=torch.bool)))


LOSSES = {"vlm2vec": vlm2vec, "unime": unime}


def step(name: str, stored: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """This rank's share of one cached step: the loss, and the gradient after the sum over the ranks."""
    encoder = nn.Linear(6, 5, bias=False)
    encoder.load_state_dict({"weight": stored["weight"]})
    share = ranks.share(ROWS)
    loss = grad_cache_step(
        encoder,
        stored["queries"][share].split(2),
        stored["candidates"][share].split(3),
        lambda q, c: LOSSES[name](ranks.gather(q), ranks.gather(c)),
    )
    ranks.sum_gradients(encoder.parameters())
    assert encoder.weight.grad is not None
    return loss, encoder.weight.grad


def work(rank: int, port: int, out: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": str(WORLD), "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with np.load(Path(__file__).with_name("golden.npz")) as arrays, ranks.joined():
        stored = Golden(dict(arrays)).under("ranks/")
        torch.save({name: step(name, stored) for name in LOSSES}, out / f"{rank}.pt")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[Tensor, Tensor]]]:
    """What both ranks got."""
    out = tmp_path_factory.mktemp("ranks")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    spawn(work, args=(port, out), nprocs=WORLD)
    return [torch.load(out / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("rank", range(WORLD))
def test_loss_and_gradient_are_those_of_vlm2vec_under_data_parallelism(
    steps: list[dict[str, tuple[Tensor, Tensor]]], golden: Golden, rank: int
) -> None:
    """Theirs multiplies the loss by the number of ranks and averages the gradients; ours sums them."""
    loss, gradient = steps[rank]["vlm2vec"]
    agree("two ranks, loss", loss, golden["ranks/loss"], LOSS)
    agree("two ranks, gradient", gradient, golden["ranks/gradient"], GRADIENTS)
    agree("two ranks, GradCache's gradient", gradient, golden["ranks/grad cache gradient"], GRADIENTS)


@pytest.mark.parametrize("rank", range(WORLD))
def test_deviation_unimes_loss_over_two_ranks_has_the_gradient_of_one(
    steps: list[dict[str, tuple[Tensor, Tensor]]], golden: Golden, rank: int
) -> None:
    """UniME's gathers without a graph, so that its value is right and backward fails."""
    assert "does not require grad" in golden.text("ranks/unime error")
    loss, gradient = steps[rank]["unime"]
    agree("UniME on two ranks, loss", loss, golden["ranks/unime loss"], LOSS)
    alone, whole = step("unime", golden.under("ranks/"))
    agree("UniME on two ranks and on one, loss", loss, alone, LOSS)
    agree("UniME on two ranks and on one, gradient", gradient, whole, GRADIENTS)
