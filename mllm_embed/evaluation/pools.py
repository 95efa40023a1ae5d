"""Which rows a task ranks: fixed by hashes of ids, never by a random state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows are held out, and how large pools get.

    Attributes:
        prefix: splits that begin with it are held out; those that end in `_dup` are ignored.
        pool_limit: upper limit of every pool, for smoke runs; None keeps the suite's sizes.
        train_queries: of the train rows that fill a pool, so many are asked as queries (in hash order), to show the
            distance between seen and unseen.
    """

    prefix: str = "test"
    pool_limit: int | None = None
    train_queries: int = 100

    def is_held_out(self, split: str) -> bool:
        """Whether rows of this split are evaluated on."""
        return split.startswith(self.prefix) and not split.endswith("_dup")

    def is_usable(self, split: str) -> bool:
        """Whether rows of this split may be in a pool: held out, or train to fill it."""
        return split == "train" or self.is_held_out(split)

    def slices(self, split: str) -> tuple[str, ...]:
        """Return the slices that a query of this split counts for."""
        return (self.prefix, split) if self.is_held_out(split) and split != self.prefix else (split,)

    def size(self, wanted: int | None) -> int | None:
        """Return a pool size under the limit; None means every held-out row."""
        return wanted if self.pool_limit is None else min(self.pool_limit, wanted or self.pool_limit)


def hash_order(items: Iterable[T], name: Callable[[T], str]) -> list[T]:
    """Sort by the SHA-256 of each item's id."""
    return sorted(items, key=lambda item: hashlib.sha256(name(item).encode()).hexdigest())


def hash_number(name: str) -> int:
    """Return a number below 2^64 that is always the same for a name: a choice that no random state makes."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])


def build_pool(
    items: Sequence[T],
    selection: Selection,
    size: int | None,
    *,
    name: Callable[[T], str],
    split: Callable[[T], str],
    equal: Callable[[T], str] | None = None,
) -> list[T]:
    """Choose the items of a pool: all held-out items, then train items until there are `size` different ones.

    Args:
        items: all items of a kind.
        selection: what is held out.
        size: number of different candidates; None takes all held-out items and no train items. Where there are more
            held-out items than this, the first in hash order are taken.
        name: the id that is hashed.
        split: the split of an item.
        equal: candidates with an equal value count as one; by default the id.

    Returns:
        held-out items first, each kind in hash order; those that count as one are all there.
    """
    size = selection.size(size)
    equal = equal or name
    held_out = hash_order((item for item in items if selection.is_held_out(split(item))), name)
    train = hash_order((item for item in items if split(item) == "train"), name) if size is not None else []
    chosen: list[T] = []
    different: set[str] = set()
    for item in held_out + train:
        value = equal(item)
        if value in different or size is None or len(different) < size:
            different.add(value)
            chosen.append(item)
    return chosen
