"""Retrieval metrics of VLM2Vec's evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parity.checkouts import Checkouts
from parity.encoder_numbers import Numbers
from parity.loss_numbers import random_units

QUERIES, CANDIDATES = 40, 30
CUTS = (1, 5, 10, CANDIDATES)


def metric_numbers(checkouts: Checkouts) -> Numbers:
    """Return metrics of random rankings with one to three right candidates, and of a ranking of equals.

    In the graded ones the first right candidate has gain 1, the second 2, the third 3.
    """
    metrics = checkouts.vlm2vec_module("src.utils.eval_utils.metrics").RankingMetrics(
        ["hit", "ndcg", "mrr", "recall", "precision", "map"], k_list=CUTS
    )
    queries, candidates = random_units(51, QUERIES, 8).numpy(), random_units(52, CANDIDATES, 8).numpy()
    rng = np.random.default_rng(53)
    truths = [rng.choice(CANDIDATES, 1 + row % 3, replace=False).tolist() for row in range(QUERIES)]
    rankings = _rankings(queries @ candidates.T)
    cases = [
        {"prediction": list(ranking), "label": truth, "rel_scores": None}
        for ranking, truth in zip(rankings, truths, strict=True)
    ]
    per_query = [metrics.evaluate([case]) for case in cases]
    graded = {
        f"metrics/graded {form} ndcg10": np.array(
            # Not by `evaluate`, which sorts the labels but not their gains.
            [
                metrics.ndcg_at_k(c["prediction"], c["label"], 10, list(range(1, len(c["label"]) + 1)), form)
                for c in cases
            ]
        )
        for form in ("linear", "exponential")
    }
    equal = {"prediction": list(_rankings(np.ones((1, 5)))[0]), "label": [0], "rel_scores": None}
    empty = {"prediction": [0, 1], "label": [], "rel_scores": None}
    wanted = {"hit1": "hit@1", "hit5": "hit@5", "ndcg5": "ndcg_linear@5", "ndcg10": "ndcg_linear@10"}
    wanted |= {"recall10": "recall@10", "precision5": "precision@5"}
    wanted |= {"mrr": f"mrr@{CANDIDATES}", "average precision": f"map@{CANDIDATES}"}
    return {
        "metrics/queries": queries,
        "metrics/candidates": candidates,
        "metrics/truths": np.array([truth + [-1] * (3 - len(truth)) for truth in truths], dtype=np.int8),
        **{f"metrics/{ours}": np.array([case[theirs] for case in per_query]) for ours, theirs in wanted.items()},
        **graded,
        "metrics/hit1 of equals": np.array(metrics.evaluate([equal])["hit@1"]),
        "metrics/recall without truths": np.array(metrics.evaluate([empty])["recall@1"]),
    }


def _rankings(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sort as VLM2Vec's eval.py does."""
    return np.argsort(-scores, axis=1)
