"""The sigmoid loss: every pair on its own, no softmax over the batch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from mllm_embed_training.losses.cosines import check_labels, check_mask, check_vectors, cosines, own_columns
from mllm_embed_training.losses.row_blocks import mean_by_rows


def siglip(
    queries: Tensor,
    candidates: Tensor,
    labels: Tensor,
    *,
    scale: float | Tensor = 10.0,
    bias: float | Tensor = -10.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Decide for every pair whether it belongs together.

        L = -1/Q sum_ij log sigmoid( z_ij (scale * s_ij + bias) ),   z_ij = 1 for the positive, -1 else

    Source: Zhai et al. 2023 (arXiv:2303.15343), which starts from scale 10 and bias -10 and learns both.

    Args:
        queries: shape [Q, D].
        candidates: shape [C, D].
        labels: column of each query's positive, int64 [Q].
        scale: multiplies the cosines; a tensor may be learned.
        bias: is added; it makes up for there being far more wrong pairs than right ones.
        mask: bool [Q, C], True where a pair does not count. A query's own positive always does.

    Returns:
        a scalar of at least 0.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_vectors(queries, candidates)
    check_labels(labels, len(queries))
    check_mask(mask, (len(queries), len(candidates)))

    def total(rows: slice) -> Tensor:
        own = own_columns(labels[rows], len(candidates))
        logits = (scale * cosines(queries[rows], candidates) + bias) * (2.0 * own - 1.0)
        terms = -functional.logsigmoid(logits)
        return (terms if mask is None else terms.masked_fill(mask[rows] & ~own, 0)).sum()

    return mean_by_rows(total, len(queries), len(candidates))
