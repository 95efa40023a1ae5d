"""InfoNCE of VLM2Vec, the selection and loss of UniME where they are right, and what we do where they are wrong."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mllm_embed_training.grad_cache import grad_cache_step
from mllm_embed_training.losses import duplicate_mask, easy_mask, false_negative_mask, info_nce
from mllm_embed_training.losses.cosines import cosines
from mllm_embed_training.objective import LossSection, Targets
from tests.training.parity.conftest import Golden, agree

pytestmark = pytest.mark.fast

LOSS, GRADIENTS = 1e-6, 1e-5
TEMPERATURE, HARDEST, MARGIN = 0.02, 8, 0.1
UNIME = LossSection.model_validate(
    {
        "info_nce": {
            "temperature": TEMPERATURE,
            "symmetric": False,
            "false_negative_margin": MARGIN,
            "hardest": HARDEST,
        }
    }
)
"""UniME's stage 2, as a recipe writes it."""


def nothing_excluded(rows: int) -> Targets:
    return Targets(torch.arange(rows), torch.zeros(rows, rows, dtype=torch.bool))


def assert_same(golden: Golden, name: str, loss: Tensor, queries: Tensor, candidates: Tensor) -> None:
    agree(f"{name}, loss", loss, golden[f"{name}/loss"], LOSS)
    for gradient, side in zip(torch.autograd.grad(loss, [queries, candidates]), ("query", "candidate"), strict=True):
        agree(f"{name}, {side} gradient", gradient, golden[f"{name}/{side} gradient"], GRADIENTS)


@pytest.mark.parametrize(("name", "per_query"), [("in batch", 1), ("explicit negatives", 3)])
def test_info_nce_is_vlm2vecs(golden: Golden, name: str, per_query: int) -> None:
    name = f"info nce/{name}"
    queries, candidates = (golden[f"{name}/{side}"].requires_grad_() for side in ("queries", "candidates"))
    loss = info_nce(queries, candidates, torch.arange(len(queries)) * per_query, temperature=TEMPERATURE)
    assert_same(golden, name, loss, queries, candidates)


def test_a_cached_step_is_that_of_the_authors_code(golden: Golden) -> None:
    """luyug's GradCache over one layer, chunks of 3 and 2 in 7 rows."""
    encoder = nn.Linear(6, 5)
    stored = golden.under("toy grad cache/")
    encoder.load_state_dict({name: stored[name] for name in ("weight", "bias")})
    loss = grad_cache_step(
        lambda chunk: torch.tanh(encoder(chunk)),
        stored["queries"].split(3),
        stored["candidates"].split(2),
        lambda q, c: info_nce(q, c, torch.arange(7), temperature=TEMPERATURE),
    )
    agree("GradCache of its authors, loss", loss, stored["loss"], LOSS)
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None
        agree(f"GradCache of its authors, {name} gradient", parameter.grad, stored[f"{name} gradient"], GRADIENTS)


def test_hard_negatives_are_those_that_unime_takes(golden: Golden) -> None:
    queries, candidates = golden["unime/queries"], golden["unime/candidates"]
    similarity, labels = queries @ candidates.T, torch.arange(len(queries))
    filtered = false_negative_mask(similarity, labels, MARGIN)
    assert int(filtered.any(dim=1).sum()) >= 16, "the filter must have something to do"
    kept = ~easy_mask(similarity, labels, filtered, HARDEST)
    assert bool(kept[labels, labels].all())
    kept[labels, labels] = False
    theirs = torch.zeros_like(kept).scatter(1, golden["unime/chosen"].long(), value=True)
    assert torch.equal(kept, theirs)


def test_unimes_loss_is_theirs_while_enough_negatives_are_fair(golden: Golden) -> None:
    queries, candidates = (golden[f"unime/{side}"].requires_grad_() for side in ("queries", "candidates"))
    loss = UNIME.value(queries, candidates, nothing_excluded(len(queries)))
    assert_same(golden, "unime", loss, queries, candidates)


def test_deviation_filtered_false_negatives_stay_out(golden: Golden) -> None:
    """UniME's loss takes them back with their scores when fewer than k fair negatives are left; the positive too."""
    queries, candidates = golden["unime refill/queries"], golden["unime refill/candidates"]
    similarity, labels = queries @ candidates.T, torch.arange(4)
    filtered = false_negative_mask(similarity, labels, MARGIN)
    assert filtered[0].tolist() == [False, True, True, False]
    refilled = golden["unime refill/chosen"][0].tolist()
    assert set(refilled) & {0, 1, 2}, "theirs: the positive or a false negative"

    assert easy_mask(similarity, labels, filtered, 3)[0].tolist() == [False, True, True, False]
    objective = LossSection.model_validate(
        {"info_nce": {"symmetric": False, "false_negative_margin": MARGIN, "hardest": 3}}
    )
    ours = float(objective.value(queries, candidates, nothing_excluded(4)))
    by_hand = [
        -math.log(math.exp(row[i] / TEMPERATURE) / sum(math.exp(row[j] / TEMPERATURE) for j in fair))
        for i, (row, fair) in enumerate(zip(similarity.tolist(), fair_columns(filtered), strict=True))
    ]
    assert ours == pytest.approx(sum(by_hand) / 4, rel=1e-5)
    assert float(golden["unime refill/loss"]) > ours + 0.5


def fair_columns(filtered: Tensor) -> list[list[int]]:
    return [torch.nonzero(~row).flatten().tolist() for row in filtered]


def test_deviation_a_batch_of_at_most_k_rows_contrasts_with_what_it_has(golden: Golden) -> None:
    assert "out of range" in golden.text("unime small batch/error")
    queries = golden["info nce/in batch/queries"][:7]
    candidates = golden["info nce/in batch/candidates"][:7]
    targets = nothing_excluded(7)
    all_of_them = LossSection.model_validate({"info_nce": {"symmetric": False, "false_negative_margin": MARGIN}})
    ours = UNIME.value(queries, candidates, targets)
    assert torch.equal(ours, all_of_them.value(queries, candidates, targets))
    assert torch.isfinite(ours)


def test_deviation_duplicates_of_the_positive_are_no_negatives(golden: Golden) -> None:
    """Two classes, perfect vectors: UniME's eight hardest negatives all equal the positive, and its loss is log 9."""
    classes = golden["unime duplicates/classes"].long()
    assert bool((classes[golden["unime duplicates/chosen"].long()] == classes[:, None]).all())
    assert float(golden["unime duplicates/loss"]) == pytest.approx(math.log(9), rel=1e-6)

    vectors, labels = torch.eye(4)[classes], torch.arange(len(classes))
    queries = [f"query {row}" for row in range(len(classes))]
    excluded = duplicate_mask(queries, [f"class {c}" for c in classes.tolist()], labels)
    negatives = ~easy_mask(vectors @ vectors.T, labels, excluded, HARDEST)
    negatives[labels, labels] = False
    assert not bool((negatives & (classes[:, None] == classes[None, :])).any())
    assert float(UNIME.value(vectors, vectors, Targets(labels, excluded))) < 1e-6


def test_deviation_explicit_negatives_do_not_move_the_labels(golden: Golden) -> None:
    """The `forward` of VLM2Vec's wrapper then takes column 0 for the positive of every query."""
    queries = golden["info nce/explicit negatives/queries"]
    candidates = golden["info nce/explicit negatives/candidates"]
    wrong = functional.cross_entropy(cosines(queries, candidates) / TEMPERATURE, torch.zeros(8, dtype=torch.long))
    assert float(golden["wrong label/loss"]) == pytest.approx(float(wrong), rel=LOSS)
    ours = info_nce(queries, candidates, torch.arange(8) * 3, temperature=TEMPERATURE)
    assert float(ours) == pytest.approx(float(golden["info nce/explicit negatives/loss"]), rel=LOSS)
