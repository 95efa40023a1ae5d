"""What a run says when it goes wrong: a loss that is no number or stands still, no negatives, no memory, no disk."""

from __future__ import annotations

import errno
import logging
import math
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from mllm_embed_training.config import TrainConfig
from mllm_embed_training.errors import TrainingFailed
from mllm_embed_training.stage import Metrics

logger = logging.getLogger(__name__)
STILL_STEPS = 100
"""Steps over which a loss must move."""
STILL_SPREAD = 1e-3
"""Standard deviation by mean below which it has not: other batches alone move a loss by far more."""
LONELY_STEPS = 10
"""Steps in a row without a negative after which a run ends."""
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED")
"""How torch reports it where it has no error of its own for it."""


class Watch:
    """Looks at every step's numbers."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=STILL_STEPS)
        self._lonely = 0
        self._warned = False

    def check(self, step: int, metrics: Metrics) -> None:
        """Look at a step before its gradients reach the weights; a loss that stands still is a warning, once.

        Raises:
            TrainingFailed: loss or gradient is not finite, or no query has had a negative for `LONELY_STEPS` steps.
        """
        for name in ("loss", "grad_norm"):
            if not math.isfinite(metrics[name]):
                raise TrainingFailed(
                    f"the {name} is {metrics[name]} at step {step}; lower optim.lr, raise optim.warmup_steps or the "
                    "loss's temperature, or check the data"
                )
        self._lonely = self._lonely + 1 if metrics.get("negatives") == 0 else 0
        if self._lonely == LONELY_STEPS:
            raise TrainingFailed(
                f"no query has had a negative for {LONELY_STEPS} steps: all answers of a batch are equal, as in a data "
                "set of one class; raise data.batch_size, mix other tasks into data.tasks, or give the rows negatives"
            )
        self._losses.append(metrics["loss"])
        if not self._warned and (still := stands_still(self._losses)) is not None:
            self._warned = True
            logger.warning("step %d: %s", step, still)


def stands_still(losses: Sequence[float]) -> str | None:
    """Say so if the last `STILL_STEPS` losses are one number, else return None."""
    if len(losses) < STILL_STEPS:
        return None
    last = torch.tensor(list(losses)[-STILL_STEPS:], dtype=torch.float64)
    mean = float(last.mean())
    if float(last.std()) > STILL_SPREAD * abs(mean):
        return None
    if mean == 0:
        return f"the loss has been 0 for {STILL_STEPS} steps: nothing is left to learn; end the run or give harder rows"
    return (
        f"the loss has stood still at {mean:.4g} for {STILL_STEPS} steps: it does not depend on the data any more, as "
        "when all vectors have become one; lower optim.lr or raise the loss's temperature, and start anew"
    )


@contextmanager
def explained(config: TrainConfig) -> Iterator[None]:
    """Turn what a machine runs out of into one sentence that names the knob.

    Raises:
        TrainingFailed: no memory, or a full disk, inside the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise TrainingFailed(
            f"no space is left to write {error.filename or config.run_dir}; free some and give the same command again: "
            f"the run goes on from its newest checkpoint in {Path(config.run_dir) / 'checkpoints'}"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        raise TrainingFailed(f"out of memory; {memory_advice(config)} ({_first_line(error)})") from error


def memory_advice(config: TrainConfig) -> str:
    """Name the knob that saves most memory at the least cost, of those that are not turned yet."""
    chunk = config.data.chunk_size
    if chunk > 1:
        return f"lower data.chunk_size, now {chunk}: the gradients stay the same"
    if config.model.gradient_checkpointing is not True:
        return "data.chunk_size is 1 already: set model.gradient_checkpointing to true, which changes no gradient"
    if config.lora is None:
        return "data.chunk_size and gradient checkpointing are in use: train an adapter (a lora section)"
    if config.model.quantization is None:
        return (
            "data.chunk_size, gradient checkpointing and an adapter are in use already: set model.quantization to nf4"
        )
    return "every knob is turned: pictures of fewer pixels, shorter texts or a smaller model are left"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
