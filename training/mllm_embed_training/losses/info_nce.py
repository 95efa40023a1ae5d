"""InfoNCE: tell the positive from in-batch and explicit negatives; with hardness weights, or with graded positives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mllm_embed_training.losses.cosines import (
    check_labels,
    check_mask,
    check_positive,
    check_vectors,
    cosines,
    own_columns,
)
from mllm_embed_training.losses.row_blocks import mean_by_rows


def info_nce(
    queries: Tensor,
    candidates: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.02,
    mask: Tensor | None = None,
    first: Tensor | None = None,
    symmetric: bool = False,
    hardness: float = 0.0,
) -> Tensor:
    """Tell each query's positive from all other candidates.

    With s_ij the cosine of query i and candidate j, y_i the positive's column and t the temperature:

        L = mean_i( -log( exp(s_{i,y_i} / t) / (exp(s_{i,y_i} / t) + sum_j w_ij exp(s_ij / t)) ) )

    over the negatives j that are not excluded, with weights w_ij = exp(hardness * s_ij) that carry no gradient: 1 where
    hardness is 0. Cosines, softmax and mean are computed in float32 whatever the inputs are (float64 stays).

    Source: van den Oord et al. 2018 (arXiv:1807.03748); VLM2Vec (arXiv:2410.05160) uses it with t = 0.02. The symmetric
    form is CLIP's (arXiv:2103.00020), without the explicit negatives in its second half. The weights are LLaVE's
    (arXiv:2503.04812), there with hardness 9.

    Args:
        queries: shape [Q, D]; normalised in here, so any length does.
        candidates: shape [C, D], likewise.
        labels: column of each query's positive, int64 [Q].
        temperature: divides the cosines.
        mask: bool [Q, C], True where a candidate is excluded (weight exactly 0 in the sum). A query's own positive is
            never excluded, whatever the mask says.
        first: int64 [C], the first column with each candidate's content, as `first_columns` finds it; later ones are no
            negatives, so that a content counts once. None: all contents differ.
        symmetric: average L with the reverse direction, in which each positive finds its query among the Q queries
            under the transposed mask. Queries that share a positive's content do not compete for it, and share its
            weight, so that here too a content counts once: of a batch of two classes the answer is asked about twice,
            not once for every query.
        hardness: at least 0; greater values make negatives count more the more similar they are.

    Returns:
        a scalar of at least 0, float32.

    Raises:
        ValueError: shapes that do not fit, or a setting out of range.
    """
    check_positive("temperature", temperature)
    check_vectors(queries, candidates)
    check_labels(labels, len(queries))
    check_mask(mask, (len(queries), len(candidates)))
    first = _checked(first, candidates)
    if hardness < 0:
        raise ValueError(f"hardness must be at least 0, but is {hardness}")
    one_way = partial(_tell_apart, temperature=temperature, hardness=hardness)
    repeats = first != torch.arange(len(first), device=first.device)

    def no_negatives(rows: slice) -> Tensor:
        """Of some queries: which candidates repeat others, or are excluded."""
        return repeats[None] if mask is None else mask[rows] | repeats

    there = one_way(queries, candidates, labels, torch.ones_like(labels), no_negatives)
    if not symmetric:
        return there
    answers = first[labels]  # one column for each content
    shares = _sharing(answers)

    def no_rivals(rows: slice) -> Tensor:
        """Of some positives: which queries share them, or have them excluded."""
        shared = answers[rows, None] == answers[None, :]
        return shared if mask is None else shared | mask[:, answers[rows]].T

    own_query = torch.arange(len(labels), device=labels.device)
    return (there + one_way(candidates[labels], queries, own_query, shares, no_rivals)) / 2


def soft_info_nce(
    queries: Tensor, candidates: Tensor, grades: Tensor, *, temperature: float = 0.02, mask: Tensor | None = None
) -> Tensor:
    """Match each query's softmax over the candidates to given grades: several positives, or graded relevance.

        L = mean_i( -sum_j p_ij log softmax_j(s_ij / t) ),   p_ij = g_ij / sum_j g_ij

    One positive per query gives `info_nce`; equal grades give the loss of supervised contrastive learning.

    Source: Khosla et al. 2020 (arXiv:2004.11362), equation 2; graded: SoftCLIP (arXiv:2303.17561).

    Args:
        queries: shape [Q, D].
        candidates: shape [C, D].
        grades: relevance of every candidate, at least 0, shape [Q, C]; a row's scale does not matter.
        temperature: divides the cosines.
        mask: bool [Q, C], True where a candidate is excluded; those with a grade above 0 never are.

    Returns:
        a scalar.

    Raises:
        ValueError: shapes that do not fit, a negative grade, or a query without any positive one.
    """
    check_positive("temperature", temperature)
    check_vectors(queries, candidates)
    shape = (len(queries), len(candidates))
    check_mask(mask, shape)
    if grades.shape != shape or bool((grades < 0).any()) or not bool((grades.sum(dim=1) > 0).all()):
        raise ValueError(
            f"grades must be {list(shape)} numbers of at least 0, at least one per row above 0, "
            f"but are {list(grades.shape)} with rows that sum to {grades.sum(dim=-1).tolist()[:4]}"
        )
    return match_grades(queries, candidates, lambda rows: grades[rows], temperature=temperature, mask=mask)


def match_grades(
    queries: Tensor,
    candidates: Tensor,
    grades: Callable[[slice], Tensor],
    *,
    temperature: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Return `soft_info_nce` of grades that are made for some queries at a time, which keeps all of them out of memory.

    Args:
        queries: shape [Q, D].
        candidates: shape [C, D].
        grades: which queries, R of them -> their grades [R, C], at least 0, at least one per row above 0.
        temperature: divides the cosines.
        mask: as for `soft_info_nce`.
    """

    def total(rows: slice) -> Tensor:
        graded = grades(rows)
        similarity = cosines(queries[rows], candidates)
        wanted = graded.to(similarity.dtype) / graded.sum(dim=1, keepdim=True)
        excluded = torch.zeros_like(graded, dtype=torch.bool) if mask is None else mask[rows] & (graded <= 0)
        logs = (similarity / temperature).masked_fill(excluded, -torch.inf).log_softmax(dim=1)
        return -(wanted * logs.masked_fill(excluded, 0)).sum()

    return mean_by_rows(total, len(queries), len(candidates))


def _sharing(answers: Tensor) -> Tensor:
    """Return how many queries have each query's answer, int64 [Q]."""
    return answers.bincount()[answers]


def _checked(first: Tensor | None, candidates: Tensor) -> Tensor:
    """Return `first`, or what it is where all contents differ."""
    columns = torch.arange(len(candidates), device=candidates.device)
    if first is None:
        return columns
    if first.shape != columns.shape or bool((first > columns).any()) or bool((first[first] != first).any()):
        raise ValueError(f"first must be, of each of {len(columns)} candidates, the lowest column with its content")
    return first


def _tell_apart(
    queries: Tensor,
    candidates: Tensor,
    labels: Tensor,
    shares: Tensor,
    excluded: Callable[[slice], Tensor],
    *,
    temperature: float,
    hardness: float,
) -> Tensor:
    """Return `info_nce` in one direction.

    `shares`, int64 [Q], says how many queries share each one's weight; `excluded` what some of them are spared, bool
    [R or 1, C].
    """

    def total(rows: slice) -> Tensor:
        own = own_columns(labels[rows], len(candidates))
        similarity = cosines(queries[rows], candidates)
        logits = similarity / temperature + (hardness * similarity.detach()).masked_fill(own, 0)
        logits = logits.masked_fill(excluded(rows) & ~own, -torch.inf)
        return (functional.cross_entropy(logits, labels[rows], reduction="none") / shares[rows]).sum()

    return mean_by_rows(total, len(queries), len(candidates))
