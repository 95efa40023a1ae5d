"""Two processes of half a batch make the step of one process with all of it: same examples, loss and gradients."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import spawn

from mllm_embed.modeling.loading import inner_model
from mllm_embed_training import ranks, toy_tasks
from mllm_embed_training.build import build_stage
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.errors import TrainingFailed
from mllm_embed_training.plan import MixturePlan
from mllm_embed_training.trainer import train, trainable
from tests.training.test_trainer import recipe

WORLD = 2


def config_for(kind: str, model: Path, run_dir: Path) -> TrainConfig:
    """Batches of four: on two ranks, two each, of which chunks are made; no dropout, whose draws follow the rank.

    Of a spread model, one rank has two candidates per query, pictures all, and the other one.
    """
    stage, _, shard = kind.partition(" ")
    lora = {"lora": {"r": 4, "alpha": 8, "dropout": 0.0, "tower": True}} if kind != "generative" else {}
    data = {"chunk_size": 1, "batch_size": 4, "group_size": 2 if shard else 4}
    tasks = {"toy-caption": 1} if stage == "generative" else {"toy-edit": 1, "toy-i2t": 1} if shard else {"toy-edit": 1}
    config = recipe(stage, model, run_dir, steps=3, data={"tasks": tasks, **data}, **lora)
    if shard:  # and what the layers gather is gathered again where they are computed again
        kept = {"shard": True, "gradient_checkpointing": "selective" if stage == "contrastive" else True}
        config = config.model_copy(update={"model": config.model.model_copy(update=kept)})
    return config


def gradients_of(kind: str, model: Path, run_dir: Path) -> dict[str, Any]:
    """The loss and all gradients of one step, as this rank has them after the sum."""
    toy_tasks.COUNT = 24
    config = config_for(kind, model, run_dir)
    stage, _ = build_stage(config, run_dir)
    stage.model.eval()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(stage):  # with lora_B at zero, lora_A would have no gradient
            parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.05)
    group_size = config.data.group_size
    plan = MixturePlan(stage.sizes, config.data.tasks, batch_size=4, group_size=group_size, steps=1, seed=0)
    metrics = stage.backward(stage.collate([stage.prepare(draw) for draw in plan.draws(0)[ranks.share(4)]]))
    ranks.sum_gradients(trainable(stage))
    named = stage.model.named_parameters()
    return {"metrics": metrics, "gradients": {name: p.grad for name, p in named if p.grad is not None}}


def worker(rank: int, port: int, kind: str, model: Path, out: Path) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": str(WORLD), "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with ranks.joined():
        assert ranks.rank() == rank
        torch.save(gradients_of(kind, model, out / "step"), out / f"gradients-{rank}.pt")
        config = config_for(kind, model, out / "run")
        stage, _ = build_stage(config, out / "run")

        def look(_done: int) -> None:
            """As a measurement does: all ranks embed, one saves, and thereafter all go on in step."""
            tokens = torch.ones(1, 4, dtype=torch.long)
            with torch.no_grad():
                inner_model(stage.model)(input_ids=tokens, attention_mask=tokens, use_cache=False)
            if rank == 0:
                stage.model.state_dict()

        assert train(config, stage, out / "run", start="tiny", after_step=look)
        named = dict(stage.model.named_parameters())
        torch.save({name: p.detach() for name, p in named.items() if p.requires_grad}, out / f"weights-{rank}.pt")
        held = {name: (p.to_local() if isinstance(p, DTensor) else p).numel() for name, p in named.items()}
        torch.save({name: (numbers, named[name].numel()) for name, numbers in held.items()}, out / f"held-{rank}.pt")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module", params=["contrastive", "generative", "contrastive spread", "generative spread"])
def trained(
    request: pytest.FixtureRequest, tiny_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    out = tmp_path_factory.mktemp("ranks")
    count = toy_tasks.COUNT
    spawn(worker, args=(free_port(), request.param, tiny_path, out), nprocs=WORLD)
    yield request.param, out
    toy_tasks.COUNT = count


def test_both_ranks_have_the_gradients_of_the_whole_batch(
    trained: tuple[str, Path], tiny_path: Path, tmp_path: Path
) -> None:
    kind, out = trained
    alone = gradients_of(kind, tiny_path, tmp_path)
    assert alone["gradients"]
    for rank in range(WORLD):
        shared = torch.load(out / f"gradients-{rank}.pt")
        assert shared["metrics"] == pytest.approx(alone["metrics"], rel=1e-5)
        assert shared["gradients"].keys() == alone["gradients"].keys()
        for name, gradient in alone["gradients"].items():
            assert gradient.norm() > 0, name
            assert (shared["gradients"][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_ranks_keep_the_same_weights_and_one_of_them_writes(trained: tuple[str, Path]) -> None:
    _, out = trained
    first, second = (torch.load(out / f"weights-{rank}.pt") for rank in range(WORLD))
    assert first
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len((out / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    assert [path.name for path in (out / "run" / "checkpoints").iterdir()] == ["step-00000003"]


def test_frozen_weights_of_layers_are_spread_where_that_is_wanted(trained: tuple[str, Path]) -> None:
    kind, out = trained
    for rank in range(WORLD):
        held = torch.load(out / f"held-{rank}.pt")
        parts = {name for name, (here, all_of_it) in held.items() if here < all_of_it}
        frozen = {name for name in held if "language_model.layers" in name and "lora" not in name}
        assert parts == (frozen if kind.endswith("spread") else set())
        assert frozen
        assert all(2 * here == all_of_it for here, all_of_it in (held[name] for name in parts))


def test_alone_nothing_is_exchanged() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    assert ranks.gather(rows) is rows
    assert (ranks.count(), ranks.rank(), ranks.first_row(rows), ranks.total(3.5)) == (1, 0, 0, 3.5)
    assert ranks.share(5) == slice(0, 5)


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3)])
def test_gathered_rows_keep_their_order_and_only_own_gradients(
    sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without processes: rank 1's view of what rank 0 sent."""
    rows = [torch.arange(size * 2.0).reshape(size, 2) + 10 * index for index, size in enumerate(sizes)]

    def sent(tensor: Tensor) -> list[Tensor]:
        if tensor.ndim == 1:
            return [torch.tensor([size]) for size in sizes]
        padded = torch.zeros(max(sizes), 2)
        padded[: sizes[0]] = rows[0]
        return [padded, tensor]

    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    monkeypatch.setattr(ranks, "_gather_equal", sent)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    own = rows[1].clone().requires_grad_()
    gathered = ranks.gather(own)
    assert torch.equal(gathered.detach(), torch.cat(rows))
    assert ranks.first_row(own) == sizes[0]
    (gradient,) = torch.autograd.grad(gathered.sum(), own)
    assert torch.equal(gradient, torch.ones_like(own))


def test_ranks_must_divide_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 3)
    with pytest.raises(TrainingFailed, match=r"data\.batch_size must be a multiple of the 3 processes, but is 4"):
        ranks.share(4)
