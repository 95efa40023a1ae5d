"""What the shape of a set of vectors says, beside the scores: cones, gaps, hubs, and how many directions are used.

All functions take float32 unit vectors, shape [N, D].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.evaluation.eval_types import EvalTask, item_key
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.evaluation.top_k import top_k
from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed.types import EmbedInput, Image
from mllm_embed.vectors import finish

Vectors = NDArray[np.float32]
SAMPLE = 2000
"""Vectors of each modality that the diagnostics look at, the first in hash order."""
_NEIGHBOURS = 10
_DIGITS = 4


def cone(vectors: Vectors) -> float:
    """Return the mean cosine of two different vectors: 0 is spread out, 1 is one point (Ethayarajh 2019)."""
    count = len(vectors)
    total = float((vectors.sum(0, dtype=np.float64) ** 2).sum())
    return (total - count) / (count * (count - 1))


def uniformity(vectors: Vectors) -> float:
    """Return log E exp(-2 |x - y|^2) over different vectors: lower is more uniform (Wang and Isola 2020)."""
    squared = 2.0 - 2.0 * (vectors @ vectors.T)
    off = ~np.eye(len(vectors), dtype=bool)
    return float(np.log(np.exp(-2.0 * squared[off].astype(np.float64)).mean()))


def alignment(queries: Vectors, positives: Vectors) -> float:
    """Return E |x - y|^2 over pairs that belong together: lower is closer (Wang and Isola 2020)."""
    return float(((queries.astype(np.float64) - positives) ** 2).sum(1).mean())


def modality_gap(texts: Vectors, pictures: Vectors) -> float:
    """Return the distance of the two modalities' centroids (Liang et al. 2022)."""
    return float(np.linalg.norm(texts.mean(0, dtype=np.float64) - pictures.mean(0, dtype=np.float64)))


def effective_rank(vectors: Vectors) -> float:
    """Return exp of the entropy of the singular values' shares: the directions in use (Roy and Vetterli 2007)."""
    values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def hubness(queries: Vectors, candidates: Vectors, neighbours: int = _NEIGHBOURS) -> float:
    """Return the skewness of how often each candidate is among a query's nearest (Radovanovic et al. 2010).

    0 where all are found equally often; a few candidates that everything finds make it large.
    """
    found = top_k(queries, [candidates], min(neighbours, len(candidates))).indices
    counts = np.bincount(found.ravel(), minlength=len(candidates)).astype(np.float64)
    spread = counts.std()
    return float(((counts - counts.mean()) ** 3).mean() / spread**3) if spread > 0 else 0.0


def diagnose(tasks: Sequence[EvalTask], store: VectorStore, *, dimensions: int | None = None) -> dict[str, Any]:
    """Compute all diagnostics from the vectors of some tasks.

    Returns:
        JSON values: `pictures` and `texts` (count, cone, uniformity, effective rank of candidates of one modality),
        `modality_gap` where there are both, and per task `alignment` and `hubness`, means over parts.
    """
    by_modality = _candidates(tasks)
    vectors = {
        name: finish(store.matrix(keys), dimensions) for name, keys in by_modality.items() if len(keys) >= _NEIGHBOURS
    }
    found: dict[str, Any] = {name: _spread(one) for name, one in vectors.items()}
    if len(vectors) == 2:
        found["modality_gap"] = round(modality_gap(vectors["texts"], vectors["pictures"]), _DIGITS)
    found["tasks"] = {task.name: _task(task, store, dimensions) for task in tasks}
    return found


def _spread(vectors: Vectors) -> dict[str, Any]:
    return {
        "count": len(vectors),
        "cone": round(cone(vectors), _DIGITS),
        "uniformity": round(uniformity(vectors), _DIGITS),
        "effective_rank": round(effective_rank(vectors), _DIGITS),
    }


def _candidates(tasks: Sequence[EvalTask]) -> dict[str, list[str]]:
    """Keys of candidates of one modality, the first in hash order."""
    keys: dict[str, set[str]] = {"pictures": set(), "texts": set()}
    for task in tasks:
        for part in task.parts:
            for item in part.candidates:
                if name := _modality(item):
                    keys[name].add(item_key(item))
    return {name: hash_order(found, str)[:SAMPLE] for name, found in keys.items()}


def _modality(item: EmbedInput) -> str | None:
    pictures = sum(isinstance(content, Image) for content in item.content)
    if pictures == len(item.content):
        return "pictures"
    return None if pictures else "texts"


def _task(task: EvalTask, store: VectorStore, dimensions: int | None) -> dict[str, float]:
    alignments, hubs = [], []
    for part in task.parts:
        queries = finish(store.matrix([item_key(query.item) for query in part.queries]), dimensions)
        candidates = finish(store.matrix([item_key(item) for item in part.candidates]), dimensions)
        alignments.append(alignment(queries, candidates[[query.truths[0] for query in part.queries]]))
        if part.pool > _NEIGHBOURS:
            hubs.append(hubness(queries, candidates[: part.pool]))
    means = {"alignment": alignments, "hubness": hubs}
    return {name: round(sum(values) / len(values), _DIGITS) for name, values in means.items() if values}
