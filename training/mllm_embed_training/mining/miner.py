"""Pairs, corpus, vectors and rules -> negatives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed_training.mining.dataset import Fault, Pair
from mllm_embed_training.mining.items import Item
from mllm_embed_training.mining.rules import Choice, Rules, choose
from mllm_embed_training.mining.search import nearest
from mllm_embed_training.mining.vectors import vector_key

_PIECE_BYTES = 64 * 2**20
"""Of corpus vectors that are searched at once."""
_HITS = 2**21
"""Hits that are held at once: queries of a batch times depth."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """What negatives are taken from.

    Attributes:
        items: no two of them with the same key.
        duplicates: entries left out because an earlier one has the same key.
    """

    items: Sequence[Item]
    duplicates: int

    @classmethod
    def of(cls, entries: Iterable[Item]) -> Corpus:
        """Keep the first of equal entries."""
        entries = list(entries)
        different = {item.key: item for item in reversed(entries)}
        items = [item for item in entries if different[item.key] is item]
        return cls(items, len(entries) - len(items))


@dataclass(frozen=True, slots=True)
class Mined:
    """A pair with what was found for it.

    Attributes:
        pair: the pair.
        positive_score: cosine of the query and its positive; of several positives, the lowest: any one of them may be
            what training contrasts the negatives with.
        own_scores: of the negatives that the pair brought along.
        negatives: of the corpus, best first.
        rival: the best candidate, whether it became a negative or not.
        choice: their scores, and what was left out.
    """

    pair: Pair
    positive_score: float
    own_scores: tuple[float, ...]
    negatives: tuple[Item, ...]
    rival: Item | None
    choice: Choice


def wanted_vectors(pairs: Sequence[Pair], corpus: Corpus) -> dict[str, tuple[Item, str]]:
    """Return every item under every instruction that mining needs a vector of, by key."""
    wanted = {}
    for pair in pairs:
        wanted[vector_key(pair.query, pair.task.query)] = (pair.query, pair.task.query)
        for item in (*pair.positives, *pair.negatives):
            wanted[vector_key(item, pair.task.target)] = (item, pair.task.target)
    for instruction in dict.fromkeys(pair.task.target for pair in pairs):
        for item in corpus.items:
            wanted[vector_key(item, instruction)] = (item, instruction)
    return wanted


def usable(pairs: Sequence[Pair], corpus: Corpus, failed: Mapping[str, str]) -> tuple[list[Pair], Corpus, list[Fault]]:
    """Leave out what has no vector.

    Args:
        pairs: the data set.
        corpus: the candidates.
        failed: why, by vector key.

    Returns:
        the pairs all of whose sides have vectors, the candidates that have theirs, and the rows of the others.
    """
    faults: dict[tuple[Path, int], Fault] = {}

    def whole(keys: Iterable[str], item: Item) -> bool:
        reason = next((failed[key] for key in keys if key in failed), None)
        if reason is not None:
            faults.setdefault((item.file.path, item.row), Fault(item.file.path, item.row, reason))
        return reason is None

    instructions = list(dict.fromkeys(pair.task.target for pair in pairs))
    kept = [pair for pair in pairs if whole(_keys(pair), pair.query)]
    items = [item for item in corpus.items if whole((vector_key(item, text) for text in instructions), item)]
    return kept, Corpus(items, corpus.duplicates), list(faults.values())


def _keys(pair: Pair) -> Iterator[str]:
    yield vector_key(pair.query, pair.task.query)
    yield from (vector_key(item, pair.task.target) for item in (*pair.positives, *pair.negatives))


def mine(pairs: Sequence[Pair], corpus: Corpus, store: VectorStore, rules: Rules, console: Console) -> list[Mined]:
    """Find negatives for every pair, in the order of the pairs.

    Args:
        pairs: the data set.
        corpus: what negatives are taken from; each pair is compared with it under its own task's target instruction.
        store: holds all of `wanted_vectors`.
        rules: which candidates become negatives; a random choice is a function of the seed and the row's number.
        console: shows the progress.
    """
    miner = _Miner(corpus, store, rules, _Banned(pairs, corpus))
    groups: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        groups[pair.task.target].append(index)
    mined: dict[int, Mined] = {}
    with Progress(console=console) as progress:
        bar = progress.add_task("searching", total=len(pairs))
        for instruction, members in groups.items():
            depth = miner.depth([pairs[index] for index in members])
            size = max(1, _HITS // depth)
            for start in range(0, len(members), size):
                batch = members[start : start + size]
                found = miner.batch([pairs[index] for index in batch], instruction, depth)
                mined.update(zip(batch, found, strict=True))
                progress.advance(bar, len(batch))
    return [mined[index] for index in range(len(pairs))]


@dataclass(frozen=True, slots=True)
class _Miner:
    """What all queries share."""

    corpus: Corpus
    store: VectorStore
    rules: Rules
    banned: _Banned

    def depth(self, pairs: Sequence[Pair]) -> int:
        """Return how many hits suffice, whatever is banned among them."""
        return self.rules.skip + self.rules.window + max(len(self.banned.rows(pair)) for pair in pairs)

    def batch(self, pairs: Sequence[Pair], instruction: str, depth: int) -> Iterator[Mined]:
        """Search once for pairs of one target instruction."""
        queries = self.store.matrix([vector_key(pair.query, pair.task.query) for pair in pairs])
        hits = nearest(queries, self._pieces(instruction), depth)
        for pair, query, rows, scores in zip(pairs, queries, *hits, strict=True):
            yield self._one(pair, query, rows, scores)

    def _one(
        self, pair: Pair, query: NDArray[np.float32], rows: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> Mined:
        positive = min(self._scores(query, pair.positives, pair.task.target))
        rng = np.random.default_rng([self.rules.seed, pair.query.row])
        without = self.banned.rows(pair)
        choice = choose(rows, scores, without=without, positive=positive, rules=self.rules, rng=rng)
        return Mined(
            pair,
            positive,
            self._scores(query, pair.negatives, pair.task.target),
            tuple(self.corpus.items[row] for row in choice.rows),
            None if choice.best is None else self.corpus.items[choice.best[0]],
            choice,
        )

    def _scores(self, query: NDArray[np.float32], items: Sequence[Item], instruction: str) -> tuple[float, ...]:
        return tuple(float(query @ self.store.matrix([vector_key(item, instruction)])[0]) for item in items)

    def _pieces(self, instruction: str) -> Iterator[NDArray[np.float32]]:
        """Yield the corpus's vectors under an instruction, in order, some MiB at a time."""
        keys = [vector_key(item, instruction) for item in self.corpus.items]
        size = max(1, _PIECE_BYTES // self.store.matrix(keys[:1]).nbytes)
        for start in range(0, len(keys), size):
            yield self.store.matrix(keys[start : start + size])


class _Banned:
    """Which corpus rows cannot be negatives of a pair: whatever is marked as right for an equal query anywhere."""

    def __init__(self, pairs: Sequence[Pair], corpus: Corpus) -> None:
        self._places = {item.key: row for row, item in enumerate(corpus.items)}
        self._right: dict[tuple[str, str], set[str]] = defaultdict(set)
        for pair in pairs:
            self._right[pair.query.key, pair.task.query].update(item.key for item in pair.positives)

    def rows(self, pair: Pair) -> dict[int, str]:
        """Return the corpus rows with the reason."""
        reasons = {item.key: "own negative" for item in pair.negatives}
        reasons[pair.query.key] = "query"
        reasons |= dict.fromkeys(self._right[pair.query.key, pair.task.query], "positive")
        return {self._places[key]: reason for key, reason in reasons.items() if key in self._places}
