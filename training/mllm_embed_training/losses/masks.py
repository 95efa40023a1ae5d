"""Which candidates are no fair negatives: masks for the contrastive losses, True where a candidate is left out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from mllm_embed_training.losses.cosines import check_columns, check_labels, check_mask, own_columns
from mllm_embed_training.losses.row_blocks import blocks_of


def duplicate_mask(
    query_keys: Sequence[Hashable], candidate_keys: Sequence[Hashable], labels: Tensor, also: Tensor | None = None
) -> Tensor:
    """Find the candidates that are right answers too, so that no loss pushes them away.

    Candidate c is excluded for query i if its content equals the positive of i, or the positive of any query whose
    content equals that of i. The column of i's own positive is never excluded. UniME's released loss lacks this: in a
    batch of two classes its hardest "negatives" are the positive itself.

    Args:
        query_keys: Q keys made from the queries' whole content (numbers or strings); equal means same content.
        candidate_keys: C keys, likewise; queries and candidates are never compared with each other.
        labels: column of each query's positive, int64 [Q].
        also: further right answers, int64 [P, 2] of query and column; they and their equals are excluded too.

    Returns:
        bool [Q, C], True = excluded, on the device of `labels`.

    Raises:
        ValueError: not as many labels as queries, or a label outside the candidates.
    """
    check_labels(labels, len(query_keys))
    check_columns(labels, len(candidate_keys))
    queries, candidates = (_numbers(keys).to(labels.device) for keys in (query_keys, candidate_keys))
    count = len(candidates)  # of numbers, at most
    answers = queries * count + candidates[labels]  # one number for each pair of contents
    if also is not None:
        answers = torch.cat([answers, queries[also[:, 0]] * count + candidates[also[:, 1]]])
    answers = answers.unique()
    excluded = torch.empty(len(queries), count, dtype=torch.bool, device=labels.device)
    for rows in blocks_of(len(queries), count):
        pairs = queries[rows, None] * count + candidates
        found = torch.searchsorted(answers, pairs).clamp_(max=len(answers) - 1)
        torch.eq(answers[found], pairs, out=excluded[rows])
    excluded[torch.arange(len(labels), device=labels.device), labels] = False
    return excluded


def first_columns(candidate_keys: Sequence[Hashable]) -> Tensor:
    """Find where each candidate's content stands first, so that an answer of many rows counts once as a negative.

    A negative that stands in n columns weighs n times as much, which moves every doubtful query away from what is
    frequent: with classes as answers, the most frequent class loses most. Sampled softmax corrects this bias against
    popular items by the log of their frequency; here the repeats are known, and left out.

    Source: the bias: Yi et al. 2019, "Sampling-bias-corrected neural modeling" (doi:10.1145/3298689.3346996).

    Args:
        candidate_keys: C keys made from the candidates' whole content (numbers or strings); equal means same content.

    Returns:
        int64 [C]: the lowest column with the same content, which is a candidate's own unless it is a repeat.
    """
    numbers = _numbers(candidate_keys)
    columns = torch.arange(len(numbers))
    return torch.full_like(numbers, len(numbers)).scatter_reduce(0, numbers, columns, "amin")[numbers]


def false_negative_mask(similarity: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Find the candidates that are too similar to a query to be wrong.

    Candidate j is excluded for query i if s_ij > s_{i,y_i} + margin.

    Source: UniME (arXiv:2504.17432), section 3.2, with margin beta = 0.1; NV-Retriever and Qwen3-VL-Embedding likewise.

    Args:
        similarity: cosines, shape [Q, C]; no gradient flows through a mask.
        labels: column of each query's positive, int64 [Q].
        margin: beta; 0.1 excludes about a quarter of UniME's rows' hardest candidates, smaller ones more.

    Returns:
        bool [Q, C], never True for a query's own positive.
    """
    check_labels(labels, len(similarity))
    positive = similarity.gather(1, labels[:, None])  # [Q, 1]
    return (similarity > positive + margin) & ~own_columns(labels, similarity.shape[1])


def easy_mask(similarity: Tensor, labels: Tensor, excluded: Tensor, hardest: int) -> Tensor:
    """Keep the k most similar negatives of each query, and exclude the rest.

    Excluded candidates stay excluded: where fewer than k are left, there are fewer. (In UniME's released loss they come
    back with their scores, and a batch of at most k rows fails.) Candidates as similar as the k-th all stay.

    Source: UniME (arXiv:2504.17432), section 3.2, with k = 8.

    Args:
        similarity: cosines, shape [Q, C].
        labels: column of each query's positive, int64 [Q].
        excluded: bool [Q, C], what is no negative already.
        hardest: k, at least 1.

    Returns:
        bool [Q, C], True = excluded (what was so before included), never True for a query's own positive.

    Raises:
        ValueError: `hardest` is less than 1, or shapes do not fit.
    """
    check_labels(labels, len(similarity))
    check_mask(excluded, similarity.shape)
    if hardest < 1:
        raise ValueError(f"hardest must be at least 1, but is {hardest}")
    own = own_columns(labels, similarity.shape[1])
    fair = similarity.detach().masked_fill(excluded | own, -torch.inf)
    kth = fair.topk(min(hardest, fair.shape[1]), dim=1).values[:, -1:]  # -inf where fewer than k are left
    return ((fair < kth) | excluded) & ~own


def _numbers(keys: Sequence[Hashable]) -> Tensor:
    """Give equal keys equal numbers."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys], dtype=torch.long)
