"""Embeds every distinct item of some tasks once, ranks, and makes the numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.errors import InputError
from mllm_embed.evaluation.encoders import Encoder
from mllm_embed.evaluation.eval_types import ROBUSTNESS, EvalTask, EvaluationError, Part, Query, item_key
from mllm_embed.evaluation.metrics import truth_ranks
from mllm_embed.evaluation.mmeb import SLICE_IN, SLICE_OUT
from mllm_embed.evaluation.query_ranks import ALL_METRICS, QueryRanks, part_digest, table
from mllm_embed.evaluation.ranking import mean_rank_variance
from mllm_embed.evaluation.robustness import drop
from mllm_embed.evaluation.task_scores import DIGITS, mean, more_means, own_score, task_score, task_scores
from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed.types import EmbedInput, Image, Text
from mllm_embed.vectors import finish

CHUNK = 256
"""Items embedded between two writes to the cache."""
PICTURES = 64
"""Pictures among them at most, as near as whole items allow: they are decoded at once, and pages have megapixels."""

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


@dataclass(frozen=True, slots=True)
class Embedded:
    """What `embed_all` did.

    Attributes:
        counts: `items` distinct ones, `pictures` those among them with a picture, `embedded` those not in the store.
        refused: why the encoder refused an item, by its key.
    """

    counts: dict[str, int]
    refused: dict[str, str]

    def failures(self, tasks: Sequence[EvalTask]) -> dict[str, str]:
        """Return the tasks that cannot be scored, since an item was refused, each with the first reason."""
        found: dict[str, str] = {}
        for task in tasks if self.refused else ():
            for item in task.items():
                if reason := self.refused.get(item_key(item)):
                    found.setdefault(task.name, reason)
        return found


def embed_all(tasks: Sequence[EvalTask], encoder: Encoder, store: VectorStore, progress: Progress) -> Embedded:
    """Fill the store with the vectors of all distinct items of the tasks; an item that is refused stops no other."""
    items: dict[str, EmbedInput] = {}
    for task in tasks:
        for item in task.items():
            items.setdefault(item_key(item), item)
    missing = sorted((key for key in items if key not in store), key=lambda key: (*_cost(items[key]), key))
    progress(len(items) - len(missing), len(items))
    refused: dict[str, str] = {}
    done = len(items) - len(missing)
    for keys in _chunks(missing, items):
        progress(done, len(items))
        done += len(keys)
        _embed_chunk(keys, items, encoder, store, refused)
    progress(len(items), len(items))
    pictures = sum(_cost(item)[0] > 0 for item in items.values())
    counts = {"items": len(items), "pictures": pictures, "embedded": len(missing) - len(refused)}
    return Embedded(counts, refused)


def _chunks(keys: Sequence[str], items: Mapping[str, EmbedInput]) -> Iterator[list[str]]:
    """Cut keys into what is embedded and kept at once."""
    chunk: list[str] = []
    pictures = 0
    for key in keys:
        chunk.append(key)
        pictures += _cost(items[key])[0]
        if len(chunk) == CHUNK or pictures >= PICTURES:
            yield chunk
            chunk, pictures = [], 0
    if chunk:
        yield chunk


def _embed_chunk(
    keys: list[str], items: dict[str, EmbedInput], encoder: Encoder, store: VectorStore, refused: dict[str, str]
) -> None:
    """Embed some items; those that the encoder refuses are written into `refused`, and the others tried again."""
    while keys:
        try:
            vectors = encoder.encode([items[key] for key in keys])
        except InputError as error:
            if error.index is None:
                raise
            refused[keys.pop(error.index)] = error.message
        else:
            store.add(keys, vectors)
            return


def _cost(item: EmbedInput) -> tuple[int, int]:
    """Items of one length fill a batch without padding, so they are embedded one after another."""
    texts = (content.text for content in item.content if isinstance(content, Text))
    return sum(isinstance(content, Image) for content in item.content), sum(map(len, texts))


def rank_tasks(tasks: Sequence[EvalTask], store: VectorStore, *, dimensions: int | None = None) -> list[QueryRanks]:
    """Rank the right candidates of every query; the vectors must be in the store.

    Args:
        tasks: what is ranked.
        store: filled by `embed_all`.
        dimensions: width that vectors are cut to (Matryoshka); None keeps all.

    Returns:
        one outcome per query, in the order of tasks, parts and queries.
    """
    return [
        outcome for task in tasks for part in task.parts for outcome in _rank_part(task.name, part, store, dimensions)
    ]


def _rank_part(task: str, part: Part, store: VectorStore, dimensions: int | None) -> list[QueryRanks]:
    queries = finish(store.matrix([item_key(query.item) for query in part.queries]), dimensions)
    candidates = finish(store.matrix([item_key(item) for item in part.candidates]), dimensions)
    ranks = truth_ranks(
        queries,
        candidates,
        [query.truths for query in part.queries],
        shared=part.shared,
        extras=[query.extras for query in part.queries],
        hidden=[query.hidden for query in part.queries],
    )
    return [
        QueryRanks(
            task,
            part.name,
            query.slices,
            query.instance,
            part.pool + len(query.extras) - len(query.hidden),
            tuple(found.tolist()),
            **_beside_ranks(query, vector, candidates),
        )
        for query, vector, found in zip(part.queries, queries, ranks, strict=True)
    ]


def _beside_ranks(query: Query, vector: NDArray[np.float32], candidates: NDArray[np.float32]) -> dict[str, Any]:
    """What is kept of a query whose right candidates are not equally right, or are not ranked at all."""
    if not query.gains and query.likeness is None:
        return {}
    cosines = candidates[list(query.truths)] @ vector
    order = np.lexsort((np.array(query.gains), -cosines)) if query.gains else ()  # ties against the model
    return {
        "gains": tuple(query.gains[place] for place in order),
        "likeness": query.likeness,
        "cosine": None if query.likeness is None else float(cosines[0]),
    }


def score_tasks(tasks: Sequence[EvalTask], outcomes: Sequence[QueryRanks]) -> dict[str, Any]:
    """Compute the numbers of tasks from the ranks of their queries.

    Returns:
        per task JSON values: `meta_task`, `headline` (a slice), `hit1` with its `chance` on that slice, the score by
        the task's own `metric` with its 95 % `interval`, all of its `scores`, its `group` if it has one, `slices`
        (means over parts), `parts` (pool, the fewest and the most candidates that a query saw, and pictures that an
        item shows where some show several, a digest of queries and candidates, and per slice the number of queries and
        all metrics) and, where queries ask for one thing in several ways, `instances`.
    """
    by_task: dict[str, list[QueryRanks]] = defaultdict(list)
    for outcome in outcomes:
        by_task[outcome.task].append(outcome)
    return {task.name: _score_task(task, by_task[task.name]) for task in tasks}


def _score_task(task: EvalTask, outcomes: Sequence[QueryRanks]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    asked: list[list[QueryRanks]] = []
    for part in task.parts:
        own = [outcome for outcome in outcomes if outcome.part == part.name]
        values = table(own)
        by_slice: dict[str, list[int]] = defaultdict(list)
        for row, outcome in enumerate(own):
            for name in outcome.slices:
                by_slice[name].append(row)
        seen = [outcome.candidates for outcome in own]
        parts[part.name] = {
            "pool": part.pool,
            "candidates": [min(seen), max(seen)],
            **_frames(part),
            "sha256": part_digest(part),
            "slices": {
                name: {**_means(values[rows]), **own_score(task.metrics[0], [own[row] for row in rows])}
                for name, rows in sorted(by_slice.items())
            },
        }
        if task.headline in by_slice:
            asked.append([own[row] for row in by_slice[task.headline]])
    names = sorted({name for part in parts.values() for name in part["slices"]})
    means = {
        name: _mean_over_parts([p["slices"][name] for p in parts.values() if name in p["slices"]]) for name in names
    }
    headline = means[task.headline]
    instances = _instances([outcome for outcome in outcomes if task.headline in outcome.slices])
    return {
        "meta_task": task.meta_task,
        **({"group": task.group} if task.group else {}),
        "headline": task.headline,
        "queries": headline["queries"],
        "hit1": headline["hit1"],
        **task_scores(task.metrics, asked),
        "chance": headline["chance"],
        **({"robustness": lost} if (lost := drop(outcomes, task.headline)) else {}),
        **({"instances": instances} if instances else {}),
        "slices": means,
        "parts": parts,
    }


def _frames(part: Part) -> dict[str, list[int]]:
    """The fewest and the most pictures that one item shows, where some show several: the frames of clips."""
    items = (*part.candidates, *(query.item for query in part.queries))
    shown = [count for item in items if (count := sum(isinstance(content, Image) for content in item.content))]
    return {"pictures_per_item": [min(shown), max(shown)]} if max(shown, default=0) > 1 else {}


def _instances(outcomes: Sequence[QueryRanks]) -> dict[str, Any]:
    """What is asked for in every way (language, side): how its rank varies, and how often every way finds it."""
    by_name: dict[str, list[int]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.instance:
            by_name[outcome.instance].append(outcome.ranks[0])
    if not by_name:
        return {}
    ways = max(map(len, by_name.values()))
    ranks = np.array([found for found in by_name.values() if len(found) == ways])
    return {
        "ways": ways,
        "count": len(ranks),
        "mean_rank_variance": round(mean_rank_variance(ranks), DIGITS),
        "all_hit1": round(float((ranks == 1).all(axis=1).mean()), DIGITS),
    }


def _means(rows: NDArray[np.float64]) -> dict[str, Any]:
    values = {name: round(float(value), DIGITS) for name, value in zip(ALL_METRICS, rows.mean(0), strict=True)}
    return {"queries": len(rows), **values}


def _mean_over_parts(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = {name: round(sum(part[name] for part in parts) / len(parts), DIGITS) for name in ALL_METRICS}
    return {"queries": sum(part["queries"] for part in parts), **values}


def overall(results: dict[str, Any]) -> dict[str, Any]:
    """Return both means of the tasks' scores: over tasks, and over meta-tasks (each the mean of its tasks).

    Robustness tasks ask what others ask, and count in neither; without any other task both are None. Tasks that are
    marked as in or out of distribution have a mean of each kind too, and so have groups (see `more_means`).
    """
    counted = [result for result in results.values() if result["meta_task"] != ROBUSTNESS]
    by_meta: dict[str, list[float]] = defaultdict(list)
    for result in counted:
        by_meta[result["meta_task"]].append(task_score(result))
    marked = {
        mark: [task_score(result) for result in counted if mark in result["slices"]] for mark in (SLICE_IN, SLICE_OUT)
    }
    metas = {name: mean(scores) for name, scores in sorted(by_meta.items())}
    return {
        "tasks": len(counted),
        "mean_over_tasks": mean([task_score(result) for result in counted]) if counted else None,
        "mean_over_meta_tasks": mean(list(metas.values())) if counted else None,
        "meta_tasks": metas,
        **{mark: mean(scores) for mark, scores in marked.items() if scores},
        **more_means(counted),
    }
