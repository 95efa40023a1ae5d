"""Embeds every distinct item of some tasks once, ranks, and makes the numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.evaluation.encoders import Encoder
from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError, Part, item_key
from mllm_embed.evaluation.metrics import METRICS, bootstrap_interval, score, truth_ranks
from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed.types import EmbedInput, Image, Text
from mllm_embed.vectors import finish

CHUNK = 256
"""Items embedded between two writes to the cache."""
_DIGITS = 6

Progress = Callable[[int, int], None]
"""Called with the number of items done and of all items."""


def supported(tasks: Sequence[EvalTask], encoder: Encoder) -> list[EvalTask]:
    """Return the tasks all of whose items the encoder accepts.

    Raises:
        EvaluationError: none is left.
    """
    chosen = [task for task in tasks if all(encoder.accepts(item) for item in task.items())]
    if not chosen:
        raise EvaluationError(
            f"{encoder.describe()['name']} can do none of these tasks: {', '.join(t.name for t in tasks)}"
        )
    return chosen


def embed_all(tasks: Sequence[EvalTask], encoder: Encoder, store: VectorStore, progress: Progress) -> dict[str, int]:
    """Fill the store with the vectors of all distinct items of the tasks.

    Returns:
        counts: `items` distinct ones, `pictures` those among them with a picture, `embedded` those not in the store.
    """
    items: dict[str, EmbedInput] = {}
    for task in tasks:
        for item in task.items():
            items.setdefault(item_key(item), item)
    missing = sorted((key for key in items if key not in store), key=lambda key: (*_cost(items[key]), key))
    progress(len(items) - len(missing), len(items))
    for start in range(0, len(missing), CHUNK):
        keys = missing[start : start + CHUNK]
        store.add(keys, encoder.encode([items[key] for key in keys]))
        progress(len(items) - len(missing) + start + len(keys), len(items))
    pictures = sum(_cost(item)[0] > 0 for item in items.values())
    return {"items": len(items), "pictures": pictures, "embedded": len(missing)}


def _cost(item: EmbedInput) -> tuple[int, int]:
    """Items of one length fill a batch without padding, so they are embedded one after another."""
    texts = (content.text for content in item.content if isinstance(content, Text))
    return sum(isinstance(content, Image) for content in item.content), sum(map(len, texts))


def score_tasks(tasks: Sequence[EvalTask], store: VectorStore, *, dimensions: int | None = None) -> dict[str, Any]:
    """Compute the numbers of tasks whose vectors are in the store.

    Args:
        tasks: what is scored.
        store: filled by `embed_all`.
        dimensions: width that vectors are cut to (Matryoshka); None keeps all.

    Returns:
        per task JSON values: `meta_task`, `headline` (a slice), `hit1` with its 95 % `interval` and `chance` on that
        slice, `slices` (means over parts) and `parts` (pool, and per slice the number of queries and all metrics).
    """
    return {task.name: _score_task(task, store, dimensions) for task in tasks}


def _score_task(task: EvalTask, store: VectorStore, dimensions: int | None) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    hits: list[NDArray[np.float64]] = []
    for part in task.parts:
        table = _part_scores(part, store, dimensions)
        by_slice: dict[str, list[int]] = defaultdict(list)
        for row, query in enumerate(part.queries):
            for name in query.slices:
                by_slice[name].append(row)
        slices = {name: _means(table[rows]) for name, rows in sorted(by_slice.items())}
        parts[part.name] = {"pool": part.pool, "slices": slices}
        if task.headline in by_slice:
            hits.append(table[by_slice[task.headline], 1])
    names = sorted({name for part in parts.values() for name in part["slices"]})
    means = {
        name: _mean_over_parts([p["slices"][name] for p in parts.values() if name in p["slices"]]) for name in names
    }
    headline = means[task.headline]
    return {
        "meta_task": task.meta_task,
        "headline": task.headline,
        "queries": headline["queries"],
        "hit1": headline["hit1"],
        "interval": [round(bound, _DIGITS) for bound in bootstrap_interval(hits)],
        "chance": headline["chance"],
        "slices": means,
        "parts": parts,
    }


def _part_scores(part: Part, store: VectorStore, dimensions: int | None) -> NDArray[np.float64]:
    """Chance and all metrics of each query, shape [Q, 1 + metrics]."""
    queries = finish(store.matrix([item_key(query.item) for query in part.queries]), dimensions)
    candidates = finish(store.matrix([item_key(item) for item in part.candidates]), dimensions)
    ranks = truth_ranks(
        queries,
        candidates,
        [query.truths for query in part.queries],
        shared=part.shared,
        extras=[query.extras for query in part.queries],
    )
    chances = [len(query.truths) / (part.pool + len(query.extras)) for query in part.queries]
    return np.array([(chance, *astuple(score(rank))) for chance, rank in zip(chances, ranks, strict=True)])


def _means(rows: NDArray[np.float64]) -> dict[str, Any]:
    values = {
        name: round(float(value), _DIGITS) for name, value in zip(("chance", *METRICS), rows.mean(0), strict=True)
    }
    return {"queries": len(rows), **values}


def _mean_over_parts(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = {name: round(sum(part[name] for part in parts) / len(parts), _DIGITS) for name in ("chance", *METRICS)}
    return {"queries": sum(part["queries"] for part in parts), **values}


def overall(results: dict[str, Any]) -> dict[str, Any]:
    """Return both means of the headline Hit@1: over tasks, and over meta-tasks (each the mean of its tasks)."""
    by_meta: dict[str, list[float]] = defaultdict(list)
    for result in results.values():
        by_meta[result["meta_task"]].append(result["hit1"])
    metas = {name: round(sum(hits) / len(hits), _DIGITS) for name, hits in sorted(by_meta.items())}
    return {
        "tasks": len(results),
        "mean_over_tasks": round(sum(result["hit1"] for result in results.values()) / len(results), _DIGITS),
        "mean_over_meta_tasks": round(sum(metas.values()) / len(metas), _DIGITS),
        "meta_tasks": metas,
    }
