"""Losses of the public code, their gradients, and where they are wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.checkouts import Checkouts
from parity.encoder_numbers import Numbers, mmeb_model

TEMPERATURE, HARDEST, MARGIN = 0.02, 8, 0.1
Loss = Callable[[Tensor, Tensor], Tensor]


def loss_numbers(checkouts: Checkouts) -> Numbers:
    """Return values and gradients of InfoNCE and of UniME's loss."""
    return {
        **_info_nce(checkouts),
        **_wrong_label(checkouts),
        **_toy_grad_cache(checkouts),
        **_unime(checkouts),
        **_unime_refill(checkouts),
        **_unime_small_batch(checkouts),
        **_unime_duplicates(checkouts),
    }


def random_units(seed: int, *shape: int) -> Tensor:
    """Draw unit vectors."""
    drawn = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return functional.normalize(torch.from_numpy(drawn), dim=-1)


def _with_gradients(name: str, loss_of: Loss, queries: Tensor, candidates: Tensor) -> Numbers:
    """Vectors are normalised in front of the loss, as VLM2Vec's pooling does."""
    x, y = queries.clone().requires_grad_(), candidates.clone().requires_grad_()
    loss = loss_of(functional.normalize(x, dim=-1), functional.normalize(y, dim=-1))
    gradients = torch.autograd.grad(loss, [x, y])
    return {
        f"{name}/queries": queries.numpy(),
        f"{name}/candidates": candidates.numpy(),
        f"{name}/loss": loss.detach().numpy(),
        f"{name}/query gradient": gradients[0].numpy(),
        f"{name}/candidate gradient": gradients[1].numpy(),
    }


def _info_nce(checkouts: Checkouts) -> Numbers:
    """VLM2Vec's loss in the batch, and with two explicit negatives behind each positive."""
    loss_of = checkouts.vlm2vec_module("src.loss").SimpleContrastiveLoss(temperature=TEMPERATURE)
    numbers: Numbers = {}
    for name, per_query in (("info nce/in batch", 1), ("info nce/explicit negatives", 3)):
        queries, candidates = 3 * random_units(11, 8, 16), 0.5 * random_units(12, 8 * per_query, 16)
        numbers |= _with_gradients(name, loss_of, queries, candidates)
    return numbers


class _Given(nn.Module):
    """Stands for an encoder whose vectors are given."""

    config = None


def _wrong_label(checkouts: Checkouts) -> Numbers:
    """The wrapper's own `forward` multiplies labels by Q // C instead of C // Q: column 0 for every query."""
    model = mmeb_model(checkouts, _Given(), normalize=False)
    model.encode_input = lambda side: side["vectors"]
    queries, candidates = random_units(11, 8, 16), random_units(12, 24, 16)
    return {"wrong label/loss": model({"vectors": queries}, {"vectors": candidates}).numpy()}


def _toy_grad_cache(checkouts: Checkouts) -> Numbers:
    """Luyug's GradCache over one layer of tanh."""
    encoder = nn.Linear(6, 5)
    rng = np.random.default_rng(21)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.from_numpy(rng.uniform(-0.5, 0.5, tuple(parameter.shape)).astype(np.float32)))
    inputs = [torch.from_numpy(rng.standard_normal((7, 6)).astype(np.float32)) for _ in range(2)]
    loss_of = checkouts.vlm2vec_module("src.loss").SimpleContrastiveLoss(temperature=TEMPERATURE)
    model = nn.Sequential(encoder, nn.Tanh())
    cache = checkouts.grad_cache_class()(
        [model, model], [3, 2], loss_of, get_rep_fn=lambda out: functional.normalize(out, dim=-1)
    )
    loss = cache(*inputs)
    numbers: Numbers = {"toy grad cache/loss": loss.numpy(), "toy grad cache/queries": inputs[0].numpy()}
    numbers["toy grad cache/candidates"] = inputs[1].numpy()
    for name, parameter in encoder.named_parameters():
        numbers[f"toy grad cache/{name}"] = parameter.detach().numpy()
        numbers[f"toy grad cache/{name} gradient"] = _gradient(parameter).numpy()
    return numbers


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError("the public code gave no gradient where it should")
    return parameter.grad


def _unime(checkouts: Checkouts) -> Numbers:
    """UniME's selection and loss where they are right: at least k fair negatives for every query."""
    loss_of = checkouts.unime_loss().SimpleContrastiveLossBatchRank(TEMPERATURE)
    queries = random_units(31, 64, 8)
    candidates = functional.normalize(queries + 1.2 * random_units(32, 64, 8), dim=-1)
    similarity = queries @ candidates.T
    fair = (similarity <= similarity.diag()[:, None] + MARGIN).sum(dim=1) - 1
    if int(fair.min()) < HARDEST or int((fair < 63).sum()) < 16:
        raise RuntimeError(f"the draw must filter in many rows and leave {HARDEST} in each, but leaves {fair.min()}")
    chosen = loss_of._topk_filtered_cosine_similarity(similarity, HARDEST, MARGIN)  # noqa: SLF001  # to be compared
    numbers = _with_gradients(
        "unime", lambda x, y: loss_of(x, y, topk=HARDEST, threshold_value=MARGIN), queries, candidates
    )
    return {**numbers, "unime/chosen": chosen.numpy().astype(np.uint8)}


def _unime_refill(checkouts: Checkouts) -> Numbers:
    """Two of the first query's three negatives are filtered, and come back: with k = 3, so does the positive."""
    loss_of = checkouts.unime_loss().SimpleContrastiveLossBatchRank(TEMPERATURE)
    angles = torch.tensor([[0.5, 0.1, 0.2, 1.2], [0.0, 1.5, 3.0, 4.5]])
    candidates, queries = (torch.stack([row.cos(), row.sin()], dim=1) for row in angles)
    chosen = loss_of._topk_filtered_cosine_similarity(queries @ candidates.T, 3, MARGIN)  # noqa: SLF001  # as above
    return {
        "unime refill/queries": queries.numpy(),
        "unime refill/candidates": candidates.numpy(),
        "unime refill/chosen": chosen.numpy(),
        "unime refill/loss": loss_of(queries, candidates, topk=3, threshold_value=MARGIN).numpy(),
    }


def _unime_small_batch(checkouts: Checkouts) -> Numbers:
    """Eight rows have seven negatives, one less than k."""
    loss_of = checkouts.unime_loss().SimpleContrastiveLossBatchRank(TEMPERATURE)
    try:
        loss_of(random_units(11, 7, 16), random_units(12, 7, 16), topk=HARDEST, threshold_value=MARGIN)
    except RuntimeError as error:
        return {"unime small batch/error": np.array(str(error).splitlines()[0])}
    raise RuntimeError("UniME's loss of 7 rows with k = 8 works now: describe it anew in docs/parity.md")


def _unime_duplicates(checkouts: Checkouts) -> Numbers:
    """64 perfect vectors of two classes: every hard negative is the positive."""
    loss_of = checkouts.unime_loss().SimpleContrastiveLossBatchRank(TEMPERATURE)
    classes = np.arange(64) % 2
    vectors = torch.eye(4)[classes]
    chosen = loss_of._topk_filtered_cosine_similarity(vectors @ vectors.T, HARDEST, MARGIN)  # noqa: SLF001  # as above
    return {
        "unime duplicates/classes": classes.astype(np.uint8),
        "unime duplicates/chosen": chosen.numpy().astype(np.uint8),
        "unime duplicates/loss": loss_of(vectors, vectors, topk=HARDEST, threshold_value=MARGIN).numpy(),
    }
