"""InfoNCE over in-batch and explicit negatives, and the mask that keeps equal answers from being negatives.

Letters: Q queries, C candidates (the positives among them), D vector width.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(
    queries: Tensor,
    candidates: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.02,
    mask: Tensor | None = None,
    symmetric: bool = False,
) -> Tensor:
    """Tell each query's positive from all other candidates.

    With s_ij the cosine of query i and candidate j, y_i the positive's column and t the temperature:

        L = mean_i( -log( exp(s_{i,y_i} / t) / sum_{j not excluded} exp(s_ij / t) ) )

    Cosines, softmax and mean are computed in float32 whatever the inputs are (float64 stays), autocast or not.

    Source: van den Oord et al. 2018 (arXiv:1807.03748); VLM2Vec (arXiv:2410.05160) uses it with t = 0.02. The symmetric
    form is CLIP's (arXiv:2103.00020), without the explicit negatives in its second half.

    Args:
        queries: shape [Q, D]; normalised in here, so any length does.
        candidates: shape [C, D], likewise.
        labels: column of each query's positive, int64 [Q].
        temperature: divides the cosines.
        mask: bool [Q, C], True where a candidate is excluded (weight exactly 0 in the sum). A query's own positive is
            never excluded, whatever the mask says.
        symmetric: average L with the reverse direction, in which each positive finds its query among the Q queries
            under the transposed mask. Queries that share a positive's column do not compete for it.

    Returns:
        a scalar of at least 0, float32.

    Raises:
        ValueError: shapes that do not fit, or a temperature that is not positive.
    """
    _check(queries, candidates, labels, temperature, mask)
    with torch.autocast(queries.device.type, enabled=False):
        logits = _unit(queries) @ _unit(candidates).T / temperature  # [Q, C]
        excluded = torch.zeros_like(logits, dtype=torch.bool) if mask is None else mask
        rows = torch.arange(len(labels), device=labels.device)
        own = torch.zeros_like(excluded)
        own[rows, labels] = True
        loss = functional.cross_entropy(logits.masked_fill(excluded & ~own, -torch.inf), labels)
        if not symmetric:
            return loss
        # A row is now a positive, a column a query.                       [Q, Q]
        shared = labels[:, None] == labels[None, :]
        rivals = (excluded[:, labels].T | shared) & (rows[:, None] != rows[None, :])
        reverse = functional.cross_entropy(logits[:, labels].T.masked_fill(rivals, -torch.inf), rows)
        return (loss + reverse) / 2


def duplicate_mask(query_keys: Sequence[Hashable], candidate_keys: Sequence[Hashable], labels: Tensor) -> Tensor:
    """Find the candidates that are right answers too, so that no loss pushes them away.

    Candidate c is excluded for query i if its content equals the positive of i, or the positive of any query whose
    content equals that of i. The column of i's own positive is never excluded. UniME's released loss lacks this: in a
    batch of two classes its hardest "negatives" are the positive itself.

    Args:
        query_keys: Q keys made from the queries' whole content (numbers or strings); equal means same content.
        candidate_keys: C keys, likewise; queries and candidates are never compared with each other.
        labels: column of each query's positive, int64 [Q].

    Returns:
        bool [Q, C], True = excluded, on the device of `labels`.

    Raises:
        ValueError: not as many labels as queries, or a label outside the candidates.
    """
    if len(labels) != len(query_keys):
        raise ValueError(f"labels must be as many as the {len(query_keys)} queries, but are {len(labels)}")
    _check_columns(labels, len(candidate_keys))
    queries, candidates = (_numbers(keys).to(labels.device) for keys in (query_keys, candidate_keys))
    same_query = queries[:, None] == queries[None, :]  # [Q, Q]
    is_answer = candidates[labels][:, None] == candidates[None, :]  # [Q, C]
    # Candidate c answers query i if it answers any query k that equals i: a boolean matrix product.
    excluded = same_query.float() @ is_answer.float() > 0  # [Q, C]
    excluded[torch.arange(len(labels), device=labels.device), labels] = False
    return excluded


def _unit(vectors: Tensor) -> Tensor:
    """Normalise rows in float32 or better."""
    return functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def _numbers(keys: Sequence[Hashable]) -> Tensor:
    """Give equal keys equal numbers."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys], dtype=torch.long)


def _check(queries: Tensor, candidates: Tensor, labels: Tensor, temperature: float, mask: Tensor | None) -> None:
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            "queries and candidates must have the shapes [Q, D] and [C, D], "
            f"but have {list(queries.shape)} and {list(candidates.shape)}"
        )
    if len(queries) == 0 or labels.shape != (len(queries),):
        raise ValueError(f"labels must have the shape [{len(queries)}] and Q be >= 1, but it is {list(labels.shape)}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, but is {temperature}")
    expected = (len(queries), len(candidates))
    if mask is not None and (mask.shape != expected or mask.dtype != torch.bool):
        raise ValueError(f"mask must be bool {list(expected)}, but is {mask.dtype} {list(mask.shape)}")


def _check_columns(labels: Tensor, count: int) -> None:
    outside = labels[(labels < 0) | (labels >= count)]
    if len(outside):
        raise ValueError(f"labels must be columns between 0 and {count - 1}, but one is {int(outside[0])}")
