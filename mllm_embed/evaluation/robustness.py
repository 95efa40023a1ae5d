"""What perturbations cost: the same queries as they were and perturbed, paired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.evaluation.eval_types import CLEAN
from mllm_embed.evaluation.query_ranks import QueryRanks
from mllm_embed.evaluation.significance import paired_interval

_DIGITS = 6
_Hits = NDArray[np.float64]
"""Hit@1 of each query, shape [Q]."""


def drop(outcomes: Sequence[QueryRanks], headline: str) -> dict[str, Any]:
    """Compute how much Hit@1 a task's perturbations cost: clean minus perturbed, of the same queries.

    Args:
        outcomes: of the queries of one task; in each part those of the slice `clean` stand in the order of those of
            the headline.
        headline: slice of the perturbed queries.

    Returns:
        `clean`, `perturbed`, `drop` and its 95 % paired bootstrap `interval`, means over parts, and the same by part
        under `parts`; nothing where no query is clean.
    """
    pairs = {}
    for name in dict.fromkeys(one.part for one in outcomes):
        clean, perturbed = (_hits(outcomes, name, kind) for kind in (CLEAN, headline))
        if len(clean):
            pairs[name] = (clean, perturbed)
    if not pairs:
        return {}
    return {**_lost(list(pairs.values())), "parts": {name: _lost([pair]) for name, pair in pairs.items()}}


def _hits(outcomes: Sequence[QueryRanks], part: str, kind: str) -> _Hits:
    return np.array([one.ranks[0] == 1 for one in outcomes if one.part == part and kind in one.slices], np.float64)


def _lost(pairs: Sequence[tuple[_Hits, _Hits]]) -> dict[str, Any]:
    clean, perturbed = ([pair[place] for pair in pairs] for place in (0, 1))
    before, after = (float(np.mean([hits.mean() for hits in side])) for side in (clean, perturbed))
    return {
        "clean": round(before, _DIGITS),
        "perturbed": round(after, _DIGITS),
        "drop": round(before - after, _DIGITS),
        "interval": [round(bound, _DIGITS) for bound in paired_interval(perturbed, clean)],
    }
