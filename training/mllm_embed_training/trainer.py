"""The training loop: one stage, from its recipe to a finished run directory."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed_training import checkpoint, ranks
from mllm_embed_training.config import OptimSection, TrainConfig
from mllm_embed_training.data_files import file_checksums
from mllm_embed_training.plan import MixturePlan
from mllm_embed_training.progress import Progress
from mllm_embed_training.run_record import write_record
from mllm_embed_training.stage import Stage
from mllm_embed_training.stream import Batches, CorruptRows, load_batches
from mllm_embed_training.watch import Watch


def train(
    config: TrainConfig,
    stage: Stage,
    run_dir: Path,
    *,
    start: str,
    after_step: Callable[[int], None] | None = None,
) -> bool:
    """Run the stage from its last checkpoint to the end.

    Every checkpoint holds weights, optimiser, random states and the step; the data stream is a function of the step.
    SIGTERM and SIGINT finish the running step, write a checkpoint and return.

    Args:
        config: the recipe.
        stage: makes batches and gradients.
        run_dir: receives checkpoints, `metrics.jsonl`, curves, `report.html` and what TensorBoard reads.
        start: fingerprint of the model that the stage began with.
        after_step: called on every rank with the number of steps done, after each; it must leave the model as it is.

    Returns:
        True if all steps are done, False if a signal ended the run early.

    Raises:
        TrainingFailed: the loss is not finite, too many rows are corrupt, or no checkpoint can be written.
        IncompatibleCheckpoint: the run directory holds a checkpoint of another recipe or of another start.
    """
    optim = config.optim
    identity = run_identity(config, start)
    seed_everything(config.seed)
    optimizer = make_optimizer(stage, optim)
    first = resume(run_dir, stage, optimizer, identity)
    if ranks.rank() == 0:
        write_record(run_dir, config, stage.tasks, identity)
    plan = MixturePlan(
        stage.sizes,
        config.data.tasks,
        batch_size=config.data.batch_size,
        group_size=config.data.group_size,
        steps=optim.steps,
        seed=config.seed,
        answers=stage.answers if config.data.distinct_answers else {},
    )
    batches = Batches(stage, plan, ranks.share(config.data.batch_size))
    corrupt, watch = CorruptRows(run_dir, first, config.data.max_corrupt), Watch()
    stage.model.train()
    with StopSignal() as stop, Progress(run_dir, first, optim.steps, config.data.batch_size) as progress:
        for step, batch in enumerate(load_batches(batches, first, config.data.workers), start=first):
            corrupt.note(step, batch.corrupt)
            rate = learning_rate(optim, step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            metrics = stage.backward(batch.content)
            ranks.sum_gradients(trainable(stage))
            norm = torch.nn.utils.clip_grad_norm_(trainable(stage), optim.max_grad_norm)
            metrics = {**metrics, "lr": rate, "grad_norm": float(norm)}
            watch.check(step, metrics)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress.update(step, plan.task(step), metrics)
            done, stopping = step + 1, ranks.any_rank(stop.requested)
            if after_step is not None:
                after_step(done)
            if (stopping or done == optim.steps or done % config.checkpoint_every == 0) and ranks.rank() == 0:
                state = {"step": done, "identity": identity}
                checkpoint.save(run_dir, done, model=stage.model, optimizer=optimizer, extra=state)
                progress.draw()
            if stopping:
                return done == optim.steps
    return True


def run_identity(config: TrainConfig, start: str) -> dict[str, str]:
    """Return what a run and its continuation must share, by recipe key: lengths and rates may differ.

    Settings at their defaults are left out, so that a version with one more of them still goes on.
    """
    data = config.data
    shared = config.model_dump(
        mode="json", include={"stage", "lora", "loss", "reconstruct", "seed"}, exclude_defaults=True
    )
    shared |= {"model": start, "model.template": config.model.template, "model.frozen": sorted(config.model.frozen)}
    if config.model.soft_prompt:
        shared["model.soft_prompt"] = [config.model.soft_prompt, config.model.path]
    kept = {"augment", "tasks", "batch_size", "group_size", "distinct_answers"}
    changed = data.model_dump(mode="json", include={"augment_ink", "augment_texts"}, exclude_defaults=True)
    shared |= {f"data.{key}": value for key, value in (data.model_dump(mode="json", include=kept) | changed).items()}
    if config.teacher is not None:
        always = {"vectors", "temperature", "teacher_temperature"}  # as runs that are under way have written them
        shared["teacher"] = {
            **config.teacher.model_dump(mode="json", include=always),
            **config.teacher.model_dump(mode="json", exclude_defaults=True),
            "sha256": file_checksums(config.teacher.vectors),
        }
    if config.picture_teacher is not None:
        shared["picture_teacher"] = {
            **config.picture_teacher.model_dump(mode="json", exclude_defaults=True),
            "sha256": file_checksums(config.picture_teacher.vectors),
        }
    for name, file in data.files.items():
        shared[f"data.files.{name}"] = {**file.model_dump(mode="json"), "sha256": file_checksums(file.path)}
    return {key: json.dumps(value, sort_keys=True) for key, value in shared.items()}


def resume(run_dir: Path, stage: Stage, optimizer: torch.optim.Optimizer, identity: dict[str, str]) -> int:
    """Load the newest checkpoint, if any; return the step to go on with.

    Raises:
        IncompatibleCheckpoint: it is damaged, or was made by another recipe or from another model.
    """
    newest = checkpoint.latest(run_dir)
    if newest is None:
        return 0
    made_by = checkpoint.read_extra(newest).get("identity", {})
    for key in {**identity, **made_by}:
        if made_by.get(key) != identity.get(key):
            raise IncompatibleCheckpoint(
                f"{newest} was made with {key} {made_by.get(key, 'unknown')}, but the recipe now says "
                f"{identity.get(key, 'nothing of it')}: give this run a run_dir of its own, or remove that one"
            )
    return int(checkpoint.load(newest, model=stage.model, optimizer=optimizer)["step"])


def make_optimizer(stage: Stage, optim: OptimSection) -> torch.optim.AdamW:
    """AdamW; biases and norms are not decayed."""
    parameters = trainable(stage)
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    used = [group for group in groups if group["params"]]
    return torch.optim.AdamW(used, lr=optim.lr, betas=(0.9, 0.98), eps=1e-6, fused=True)


def trainable(stage: Stage) -> list[torch.nn.Parameter]:
    """The parameters that are trained."""
    return [parameter for parameter in stage.model.parameters() if parameter.requires_grad]


def learning_rate(optim: OptimSection, step: int) -> float:
    """Warm up linearly, stay, fall linearly over the last `decay_steps`: a longer run shares the shorter one's path."""
    up = min(1.0, (step + 1) / max(1, optim.warmup_steps))
    down = min(1.0, (optim.steps - step) / max(1, optim.decay_steps))
    return optim.lr * min(up, down)


def seed_everything(seed: int) -> None:
    """Seed the global generators that dropout and initialisation use; data has its own, derived from the plan."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # third-party code reads the global state
    torch.manual_seed(seed)


class StopSignal:
    """Turns the first SIGTERM or SIGINT into a request that the loop honours between steps."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
