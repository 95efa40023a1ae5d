"""Losses whose targets come from other vectors: a teacher's, a guide's, or a group of translations."""

from __future__ import annotations

import torch
from torch import Tensor

from mllm_embed_training.losses.cosines import check_mask, check_positive, cosines
from mllm_embed_training.losses.info_nce import match_grades
from mllm_embed_training.losses.row_blocks import mean_by_rows


def cwcl(
    queries: Tensor, candidates: Tensor, guide: Tensor, *, temperature: float = 0.02, mask: Tensor | None = None
) -> Tensor:
    """Contrast with weights that come from how similar the candidates are to each other for a frozen guide.

    `soft_info_nce` with the grades w_ij = (1 + cos(u_i, u_j)) / 2, u being the guide's vectors.

    Source: Srinivasa et al. 2023 (arXiv:2309.14580), equations 3 and 4.

    Args:
        queries: shape [Q, D]; query i belongs to candidate i.
        candidates: shape [Q, D].
        guide: the frozen guide's vectors of the candidates (or the queries), shape [Q, G].
        temperature: divides the cosines.
        mask: bool [Q, Q], True where a candidate of weight 0 is excluded.

    Raises:
        ValueError: shapes that do not fit.
    """
    if not len(queries) == len(candidates) == len(guide):
        raise ValueError(
            "queries, candidates and the guide's vectors must be equally many, "
            f"but are {len(queries)}, {len(candidates)} and {len(guide)}"
        )
    check_positive("temperature", temperature)
    check_mask(mask, (len(queries), len(queries)))
    guide = guide.detach()

    def grades(rows: slice) -> Tensor:
        return (1 + cosines(guide[rows], guide).clamp(-1, 1)) / 2

    return match_grades(queries, candidates, grades, temperature=temperature, mask=mask)


def one_to_k(queries: Tensor, candidates: Tensor, *, temperature: float = 0.02) -> Tensor:
    """Align each query with K candidates at once (one picture, its text in K languages), and each of them with it.

    Half of `soft_info_nce` with K equal grades per query, half of `info_nce` from every candidate to the queries; every
    language weighs the same in both.

    Source: Nie et al. 2024 (arXiv:2406.18254), section 4.

    Args:
        queries: shape [Q, D].
        candidates: shape [Q * K, D]; those of query i are rows i * K to i * K + K - 1.
        temperature: divides the cosines.

    Raises:
        ValueError: the candidates are no multiple of the queries.
    """
    if len(queries) == 0 or len(candidates) == 0 or len(candidates) % len(queries):
        raise ValueError(f"candidates must be a multiple of the {len(queries)} queries, but are {len(candidates)}")
    check_positive("temperature", temperature)
    query = torch.arange(len(queries), device=queries.device)
    owner = query.repeat_interleave(len(candidates) // len(queries))  # the query of each candidate
    there = match_grades(queries, candidates, lambda rows: query[rows, None] == owner, temperature=temperature)
    back = match_grades(candidates, queries, lambda rows: owner[rows, None] == query, temperature=temperature)
    return (there + back) / 2


def similarity_distillation(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 0.02,
    teacher_temperature: float | None = None,
    exclude_self: bool = False,
) -> Tensor:
    """Make the student's vectors of a batch as similar to each other as the teacher's are.

        L = mean_i KL( softmax_j(cos(t_i, t_j) / tau_t) || softmax_j(cos(s_i, s_j) / tau) )

    over all j of the batch, i included unless `exclude_self`. The widths of teacher and student may differ.

    Source: UniME (arXiv:2504.17432), section 3.1, textual discriminative distillation; its temperature is unpublished.

    Args:
        student: shape [B, D].
        teacher: shape [B, T]; no gradient flows into it.
        temperature: of the student, tau.
        teacher_temperature: tau_t; the student's if None.
        exclude_self: leaves j = i out of both distributions. A row's cosine with itself is 1 for teacher and student
            alike, and at a low temperature it has nearly all of both: what is left to learn is nearly nothing.

    Returns:
        a scalar of at least 0; 0 if the similarities are equal.

    Raises:
        ValueError: not as many rows, or a temperature that is not positive.
    """
    if len(student) != len(teacher):
        raise ValueError(f"student and teacher must have as many rows, but have {len(student)} and {len(teacher)}")
    wanted = temperature if teacher_temperature is None else teacher_temperature
    check_positive("temperature", temperature)
    check_positive("teacher_temperature", wanted)
    teacher = teacher.detach()

    columns = torch.arange(len(student), device=student.device)

    def spread(vectors: Tensor, rows: slice, divisor: float) -> Tensor:
        logits = cosines(vectors[rows], vectors) / divisor
        if exclude_self:  # the least number rather than -inf, whose share of the divergence would be 0 * nan
            logits = logits.masked_fill(columns[rows, None] == columns, torch.finfo(logits.dtype).min)
        return logits.log_softmax(dim=1)

    def total(rows: slice) -> Tensor:
        return _kl(spread(teacher, rows, wanted), spread(student, rows, temperature)).sum()

    return mean_by_rows(total, len(student), len(student))


def score_distillation(
    queries: Tensor, candidates: Tensor, scores: Tensor, *, temperature: float = 0.02, score_temperature: float = 0.02
) -> Tensor:
    """Rank each query's own candidates as a judge or reranker scores them, by the mean of both KL divergences.

        L = mean_i( KL(P_i || Q_i) + KL(Q_i || P_i) ) / 2,  P = softmax(scores / tau_s),  Q = softmax(cosines / tau)

    Source: UniME-V2 (arXiv:2510.13515).

    Args:
        queries: shape [Q, D].
        candidates: each query's own candidates, shape [Q, K, D].
        scores: the judge's, shape [Q, K].
        temperature: tau.
        score_temperature: tau_s.

    Raises:
        ValueError: shapes that do not fit, or a temperature that is not positive.
    """
    if candidates.ndim != 3 or scores.shape != candidates.shape[:2] or len(queries) != len(candidates):
        raise ValueError(
            "candidates and scores must have the shapes [Q, K, D] and [Q, K], "
            f"but have {list(candidates.shape)} and {list(scores.shape)} for {len(queries)} queries"
        )
    check_positive("temperature", temperature)
    check_positive("score_temperature", score_temperature)
    similarity = torch.stack([cosines(q[None], c)[0] for q, c in zip(queries, candidates, strict=True)])  # [Q, K]
    judged = (scores.to(similarity.dtype) / score_temperature).log_softmax(dim=1)
    ours = (similarity / temperature).log_softmax(dim=1)
    return (_kl(judged, ours) + _kl(ours, judged)).mean() / 2


def _kl(target: Tensor, other: Tensor) -> Tensor:
    """KL(target || other) of every row, both as logarithms [N, M]; shape [N]."""
    return (target.exp() * (target - other)).sum(dim=1)
