"""Where each query's right candidates stood: the file beside a report that paired comparisons need."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.evaluation.eval_types import EvaluationError, Part, Query, item_key
from mllm_embed.evaluation.metrics import METRICS, score
from mllm_embed.evaluation.ranking import Ranking, average_precision, graded_ndcg, r_precision, recall

MORE_METRICS = ("recall10", "map", "r_precision")
"""Metrics beside `METRICS` that tell something where a query has several right candidates."""

_PLAIN = ("task", "part", "instance", "candidates", "likeness", "cosine")
_LISTS = ("slices", "ranks", "gains")


@dataclass(frozen=True, slots=True)
class QueryRanks:
    """One query's outcome.

    Attributes:
        task: name of the task.
        part: name of its part.
        slices: groups of queries that it counts for.
        instance: see `Query.instance`.
        candidates: number of candidates that it saw.
        ranks: ascending 1-based ranks of the right ones.
        gains: their relevance in the same order; empty means that all are equally right.
        likeness: see `Query.likeness`.
        cosine: of the query and its only candidate; None where candidates are ranked.
    """

    task: str
    part: str
    slices: tuple[str, ...]
    instance: str
    candidates: int
    ranks: tuple[int, ...]
    gains: tuple[float, ...] = ()
    likeness: float | None = None
    cosine: float | None = None

    @property
    def chance(self) -> float:
        """Hit@1 of a random order."""
        return len(self.ranks) / self.candidates

    def ranking(self) -> Ranking:
        """Return where the right candidates stood, with their relevance."""
        ranks = np.array(self.ranks, dtype=np.int64)
        if not self.gains:
            return Ranking.of_ranks(ranks)
        gains = np.array(self.gains, dtype=np.float64)
        return Ranking(ranks, gains, np.sort(gains)[::-1])

    def values(self) -> tuple[float, ...]:
        """Return chance and all metrics, in the order of `ALL_METRICS`; nDCG counts how right a candidate is."""
        ranking = self.ranking()
        first = score(ranking.ranks)
        if self.gains:
            first = replace(first, ndcg5=graded_ndcg(ranking, 5), ndcg10=graded_ndcg(ranking, 10))
        more = (recall(ranking, 10), average_precision(ranking), r_precision(ranking))
        return (self.chance, *astuple(first), *more)


ALL_METRICS = ("chance", *METRICS, *MORE_METRICS)
"""Names of everything that is computed for a query."""


def table(outcomes: Sequence[QueryRanks]) -> NDArray[np.float64]:
    """Return all metrics of some queries, float64, shape [Q, len(ALL_METRICS)]."""
    return np.array([one.values() for one in outcomes])


def part_digest(part: Part) -> str:
    """Return a SHA-256 that changes with any query, answer or candidate, but not with the order of candidates."""
    keys = [item_key(item) for item in part.candidates]
    digest = hashlib.sha256(repr(sorted(keys[: part.pool])).encode())
    for query in part.queries:
        seen = [sorted(keys[place] for place in places) for places in (query.truths, query.extras)]
        digest.update(repr((item_key(query.item), seen, query.slices)).encode())
        digest.update(_more_of_query(query, keys).encode())
    return digest.hexdigest()


def _more_of_query(query: Query, keys: Sequence[str]) -> str:
    """What only some queries have: nothing for the others, whose digests stay as they were."""
    gains = sorted(zip((keys[place] for place in query.truths), query.gains, strict=True)) if query.gains else []
    hidden = sorted(keys[place] for place in query.hidden)
    return repr((gains, hidden, query.likeness)) if gains or hidden or query.likeness is not None else ""


def ranks_file(report: Path) -> Path:
    """Return where the ranks of a report lie: beside it."""
    return report.with_name(f"{report.name.removesuffix('.json')}.ranks.parquet")


def write_ranks(path: Path, outcomes: Iterable[QueryRanks]) -> str:
    """Write all queries' outcomes, and return the file's SHA-256."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = [
        {
            **{name: getattr(one, name) for name in _PLAIN},
            **{name: list(getattr(one, name)) for name in _LISTS},
        }
        for one in outcomes
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_ranks(path: Path, sha256: str) -> list[QueryRanks]:
    """Read what `write_ranks` wrote.

    Raises:
        EvaluationError: the file is missing, damaged, or of another run.
    """
    import pyarrow.parquet as pq

    if not path.is_file():
        raise EvaluationError(f"{path} is missing; it is written beside the report, and paired comparisons need it")
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise EvaluationError(f"{path} is not of the same run as its report")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    lists: list[dict[str, Any]] = [{name: tuple(row.pop(name, ())) for name in _LISTS} for row in rows]
    return [QueryRanks(**row, **more) for row, more in zip(rows, lists, strict=True)]
