"""Which rows make up which step: a fixed function of the seed, so that a resumed run continues exactly."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Draw:
    """One example to make: a task, one of its rows, and the seed of everything random in it."""

    task: str
    row: int
    seed: tuple[int, int, int]


class MixturePlan:
    """Draws batches from weighted tasks; every group of `group_size` examples comes from one task.

    With `group_size == batch_size` batches are homogeneous (hard in-batch negatives, as VLM2Vec-V2 argues); smaller
    groups interleave tasks. Each task's rows are gone through in shuffled epochs: every row once before any row twice.

    Args:
        sizes: rows per task.
        weights: relative share of groups per task; tasks of weight 0 are never drawn.
        batch_size: examples per step.
        group_size: examples per group; must divide `batch_size`.
        steps: length of the plan.
        seed: of the whole plan.
        answers: by task, what says which rows have the same answer (numbers, one per row); no two of them come into one
            group of such a task unless too few others are left.

    Raises:
        ValueError: no positive weight, an empty task, or `group_size` does not divide `batch_size`.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        weights: Mapping[str, float],
        *,
        batch_size: int,
        group_size: int,
        steps: int,
        seed: int,
        answers: Mapping[str, Callable[[], NDArray[np.int64]]] | None = None,
    ) -> None:
        if batch_size % group_size:
            raise ValueError(f"group_size must divide batch_size {batch_size}, but is {group_size}")
        self._names = [name for name in sizes if weights[name] > 0]
        if not self._names:
            raise ValueError("at least one task needs a positive weight")
        if empty := [name for name in self._names if sizes[name] == 0]:
            raise ValueError(f"these tasks have no rows: {', '.join(empty)}")
        self._sizes = dict(sizes)
        self._group_size = group_size
        self._seed = seed
        share = np.array([weights[name] for name in self._names], dtype=np.float64)
        rng = np.random.default_rng(seed)
        self._groups = rng.choice(len(self._names), size=(steps, batch_size // group_size), p=share / share.sum())
        self._starts = self._count_groups()
        self._answers = {name: read() for name, read in (answers or {}).items() if name in self._names}
        self._orders: dict[tuple[str, int], NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def draws(self, step: int) -> list[Draw]:
        """Return the examples of one step, in order."""
        draws: list[Draw] = []
        for group, start in zip(self._groups[step], self._starts[step], strict=True):
            name = self._names[group]
            for offset in range(self._group_size):
                row = self._row(name, int(start) * self._group_size + offset)
                draws.append(Draw(name, row, (self._seed, step, len(draws))))
        return draws

    def task(self, step: int) -> str | None:
        """Return the one task that a step's examples come from, or None if there are several."""
        groups = set(self._groups[step].tolist())
        return self._names[groups.pop()] if len(groups) == 1 else None

    def _count_groups(self) -> NDArray[np.int64]:
        """For every group, how many groups of its task came before it."""
        flat = self._groups.ravel()
        counts = np.zeros(flat.shape, dtype=np.int64)
        for task in range(len(self._names)):
            where = np.flatnonzero(flat == task)
            counts[where] = np.arange(len(where))
        return counts.reshape(self._groups.shape)

    def _row(self, name: str, position: int) -> int:
        epoch, index = divmod(position, self._sizes[name])
        if (name, epoch) not in self._orders:
            self._orders[name, epoch] = self._order(name, epoch)
        return int(self._orders[name, epoch][index])

    def _order(self, name: str, epoch: int) -> NDArray[np.int64]:
        """The order in which an epoch goes through a task's rows."""
        size = self._sizes[name]
        order = np.random.default_rng([self._seed, self._names.index(name), epoch]).permutation(size)
        if name not in self._answers:
            return order
        first = -(epoch * size) % self._group_size  # rows that complete the group begun in the epoch before
        return spread(order, self._answers[name], self._group_size, first)


def spread(order: NDArray[np.int64], answers: NDArray[np.int64], group: int, first: int) -> NDArray[np.int64]:
    """Rearrange rows so that no two of one answer come into the same group, as far as that is possible.

    A row whose answer the present group has already waits for the next group that lacks it. Where only such rows are
    left, they fill the last groups, and the loss's mask of duplicates takes care of them.

    Args:
        order: row numbers, int64 [N].
        answers: equal where rows have the same answer, indexed by row number.
        group: rows per group.
        first: rows of the first group, which the epoch before has begun; 0 if none has.

    Returns:
        the same row numbers, int64 [N].
    """
    waiting: deque[int] = deque(order.tolist())
    left = Counter(answers[order].tolist())
    arranged: list[int] = []
    room = first or group
    while waiting:
        taken: set[int] = set()
        passed: list[int] = []
        chosen: list[int] = []
        while len(chosen) < min(room, len(left)):  # all answers that are left may be fewer than there is room
            row = waiting.popleft()
            answer = int(answers[row])
            (passed if answer in taken else chosen).append(row)
            taken.add(answer)
        waiting.extendleft(reversed(passed))
        chosen += [waiting.popleft() for _ in range(min(room - len(chosen), len(waiting)))]
        left -= Counter(answers[chosen].tolist())  # drops what has come to zero
        arranged += chosen
        room = group
    return np.array(arranged, dtype=np.int64)
