"""The stream of batches: the plan's draws made ready, a corrupt row replaced by the next one and reported."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mllm_embed.errors import InputError
from mllm_embed_training import ranks
from mllm_embed_training.errors import CorruptRow, TrainingFailed
from mllm_embed_training.plan import Draw, MixturePlan
from mllm_embed_training.run_files import CORRUPT, forget, read_lines
from mllm_embed_training.stage import Stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step learns from, and what it could not read.

    Attributes:
        content: as the stage's `collate` made it.
        corrupt: one message per corrupt row.
    """

    content: Any
    corrupt: tuple[str, ...]


class Batches(Dataset[Batch]):
    """This rank's part of every step's batch, made when asked for: a function of the plan, in any worker process."""

    def __init__(self, stage: Stage, plan: MixturePlan, part: slice) -> None:
        self._stage = stage
        self._plan = plan
        self._part = part

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, step: int) -> Batch:
        corrupt: list[str] = []
        prepared = [self._prepare(draw, corrupt) for draw in self._plan.draws(step)[self._part]]
        return Batch(self._stage.collate(prepared), tuple(corrupt))

    def _prepare(self, draw: Draw, corrupt: list[str]) -> Any:
        """Make a draw ready, or one of the row that follows where the row is corrupt."""
        size = self._stage.sizes[draw.task]
        for tried in range(size):
            row = (draw.row + tried) % size
            try:
                return self._stage.prepare(replace(draw, row=row))
            except (CorruptRow, InputError) as error:
                corrupt.append(f"{draw.task}: row {row}: {error}")
        raise TrainingFailed(f"{draw.task}: none of its {size} rows can be read; the last says: {corrupt[-1]}")


def load_batches(batches: Batches, first: int, workers: int) -> Iterator[Batch]:
    """Return the batches from step `first` on, prepared by worker processes where asked."""
    loader: DataLoader[Batch] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, len(batches)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # else making the iterator would draw from the generator that dropout uses
    )
    return iter(loader)


class CorruptRows:
    """Counts and records the corrupt rows of a run, those of its earlier processes included.

    Args:
        run_dir: receives `corrupt.jsonl`.
        first: first step of this process; what is recorded from there on is forgotten, since it will be met again.
        limit: different rows beyond which the run ends.
    """

    def __init__(self, run_dir: Path, first: int, limit: int) -> None:
        self._file = run_dir / CORRUPT
        self._limit = limit
        self._seen = {row["row"] for row in read_lines(self._file) if row["step"] < first}
        if ranks.rank() == 0:
            forget(self._file, first)

    def __len__(self) -> int:
        return len(self._seen)

    def note(self, step: int, messages: Sequence[str]) -> None:
        """Record the corrupt rows of one step, on all ranks.

        Raises:
            TrainingFailed: they have become too many.
        """
        new = [message for message in ranks.collect(messages) if message not in self._seen]
        if not new:
            return
        self._seen.update(new)
        if ranks.rank() == 0:
            with self._file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"step": step, "row": message}) + "\n" for message in new)
            for message in new:
                logger.warning("a corrupt row is replaced by the next one: %s", message)
        if len(self._seen) > self._limit:
            raise TrainingFailed(
                f"{len(self._seen)} corrupt rows, and data.max_corrupt is {self._limit}; {self._file} lists them, "
                f"the last is {new[-1]}"
            )
