"""The further losses: a hand-computed value each, what they reduce to, what they refuse, and finite differences."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mllm_embed_training.losses import (
    alignment,
    cwcl,
    easy_mask,
    false_negative_mask,
    geodesic_mixup,
    info_nce,
    one_to_k,
    score_distillation,
    siglip,
    similarity_distillation,
    slerp,
    soft_info_nce,
    uniformity,
)

pytestmark = pytest.mark.fast
R = math.sqrt(0.5)
EAST, NORTH, NORTH_EAST = [1.0, 0.0], [0.0, 1.0], [R, R]
FIRST_THREE = torch.tensor([0, 1, 2])


def vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(*logits: float) -> list[float]:
    total = sum(map(math.exp, logits))
    return [math.exp(value) / total for value in logits]


def kl(first: list[float], second: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))


# Hardness weights


def test_hardness_weights_negatives_by_their_own_similarity() -> None:
    query, candidates = torch.tensor([EAST]), torch.tensor([EAST, NORTH_EAST, NORTH])
    loss = info_nce(query, candidates, torch.tensor([0]), temperature=1.0, hardness=9.0)
    expected = -math.log(math.e / (math.e + math.exp(9 * R) * math.exp(R) + 1))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_hardness_zero_is_info_nce_and_carries_no_gradient_of_its_own(symmetric: bool) -> None:
    queries, candidates = vectors(3, 4).requires_grad_(), vectors(5, 4, seed=1)
    plain = info_nce(queries, candidates, FIRST_THREE, temperature=0.5, symmetric=symmetric)
    zero = info_nce(queries, candidates, FIRST_THREE, temperature=0.5, symmetric=symmetric, hardness=0.0)
    assert torch.equal(plain, zero)
    # With weights frozen at their value, the gradient is that of a loss with constant offsets on the negatives.
    (with_weights,) = torch.autograd.grad(
        info_nce(queries, candidates, FIRST_THREE, temperature=0.5, hardness=3.0), queries
    )
    unit = torch.nn.functional.normalize
    similarity = unit(queries, dim=1) @ unit(candidates, dim=1).T
    offsets = 3.0 * similarity.detach()
    offsets[torch.arange(3), FIRST_THREE] = 0
    (by_hand,) = torch.autograd.grad(
        torch.nn.functional.cross_entropy(similarity / 0.5 + offsets, FIRST_THREE), queries
    )
    torch.testing.assert_close(with_weights, by_hand)


# Masks


def test_candidates_more_similar_than_the_positive_by_a_margin_are_false_negatives() -> None:
    similarity = torch.tensor([[0.5, 0.61, 0.59, 0.9], [0.1, 0.3, 0.2, 0.39]])
    mask = false_negative_mask(similarity, torch.tensor([0, 1]), 0.1)
    assert mask.tolist() == [[False, True, False, True], [False, False, False, False]]


def test_a_negative_margin_never_excludes_the_positive() -> None:
    mask = false_negative_mask(torch.tensor([[0.5, 0.45, 0.3]]), torch.tensor([0]), -0.1)
    assert mask.tolist() == [[False, True, False]]


def test_the_hardest_stay() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.5, 0.3, 0.4]])
    none = torch.zeros(1, 5, dtype=torch.bool)
    assert easy_mask(similarity, torch.tensor([0]), none, 2).tolist() == [[False, True, False, True, False]]


def test_what_was_excluded_does_not_come_back() -> None:
    """The released UniME loss returns the indices of excluded columns, and reads their scores again."""
    similarity = torch.tensor([[0.5, 0.9, 0.8, 0.1]])
    filtered = false_negative_mask(similarity, torch.tensor([0]), 0.1)
    assert easy_mask(similarity, torch.tensor([0]), filtered, 3).tolist() == [[False, True, True, False]]


def test_a_batch_smaller_than_k_keeps_what_there_is() -> None:
    similarity = torch.tensor([[0.5, 0.1], [0.2, 0.6]])
    none = torch.zeros(2, 2, dtype=torch.bool)
    assert not easy_mask(similarity, torch.tensor([0, 1]), none, 8).any()


def test_hardest_negatives_by_masks_equal_a_loss_over_the_chosen_columns() -> None:
    """UniME stage 2 where it is right: filter, take the top k, cross-entropy over the positive and them."""
    queries, candidates = vectors(16, 6), vectors(16, 6, seed=1)
    labels = torch.arange(16)
    similarity = torch.nn.functional.normalize(queries, dim=1) @ torch.nn.functional.normalize(candidates, dim=1).T
    filtered = false_negative_mask(similarity, labels, 0.1)
    loss = info_nce(queries, candidates, labels, temperature=0.5, mask=easy_mask(similarity, labels, filtered, 4))
    terms = []
    for row in range(16):
        fair = [float(similarity[row, j]) for j in range(16) if j != row and not filtered[row, j]]
        chosen = sorted(fair, reverse=True)[:4]
        terms.append(-math.log(softmax(*[s / 0.5 for s in [float(similarity[row, row]), *chosen]])[0]))
    assert loss.item() == pytest.approx(sum(terms) / 16, rel=1e-9)


# Several and graded positives


def test_one_positive_is_info_nce() -> None:
    queries, candidates = vectors(3, 4), vectors(5, 4, seed=1)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 4] = True
    soft = soft_info_nce(queries, candidates, torch.eye(3, 5), temperature=0.2, mask=mask)
    torch.testing.assert_close(soft, info_nce(queries, candidates, FIRST_THREE, temperature=0.2, mask=mask))


def test_grades_are_shares_of_the_target() -> None:
    shares = softmax(1, R, 0)
    loss = soft_info_nce(
        torch.tensor([EAST]),
        torch.tensor([EAST, NORTH_EAST, NORTH]),
        torch.tensor([[3.0, 1.0, 0.0]]),
        temperature=1.0,
    )
    assert loss.item() == pytest.approx(-0.75 * math.log(shares[0]) - 0.25 * math.log(shares[1]), rel=1e-6)


def test_a_query_without_a_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one per row above 0"):
        soft_info_nce(vectors(2, 4), vectors(2, 4), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


# SigLIP


def test_siglip_by_hand() -> None:
    loss = siglip(torch.tensor([EAST]), torch.tensor([EAST, NORTH]), torch.tensor([0]), scale=2.0, bias=-1.0)
    expected = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-1))  # logits 1 and -1, signs + and -
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_siglip_without_the_excluded_pairs_and_never_without_the_positive() -> None:
    queries, candidates = vectors(2, 4), vectors(3, 4, seed=1)
    mask = torch.ones(2, 3, dtype=torch.bool)
    labels = torch.tensor([0, 2])
    only_positives = siglip(queries, candidates, labels, mask=mask)
    unit = torch.nn.functional.normalize
    similarity = (unit(queries, dim=1) * unit(candidates, dim=1)[labels]).sum(dim=1)
    expected = -torch.nn.functional.logsigmoid(10 * similarity - 10).mean()
    torch.testing.assert_close(only_positives, expected)


# Guided losses


def test_cwcl_weights_by_the_guide() -> None:
    queries, candidates = torch.tensor([EAST, NORTH]), torch.tensor([EAST, NORTH])
    loss = cwcl(queries, candidates, torch.tensor([EAST, NORTH]), temperature=1.0)
    right, wrong = softmax(1, 0)
    # The guide's cosine between the two is 0, hence weights 1 and 1/2, shares 2/3 and 1/3.
    assert loss.item() == pytest.approx(-2 / 3 * math.log(right) - 1 / 3 * math.log(wrong), rel=1e-6)


def test_cwcl_with_a_guide_of_opposites_is_info_nce() -> None:
    queries, candidates = vectors(2, 4), vectors(2, 4, seed=1)
    guide = torch.tensor([EAST, [-1.0, 0.0]], dtype=torch.float64)
    expected = info_nce(queries, candidates, torch.arange(2), temperature=0.3)
    torch.testing.assert_close(cwcl(queries, candidates, guide, temperature=0.3), expected)


def test_one_to_k_by_hand_and_with_k_of_one() -> None:
    queries, candidates = vectors(3, 4), vectors(3, 4, seed=1)
    both_ways = info_nce(queries, candidates, FIRST_THREE, temperature=0.4, symmetric=True)
    torch.testing.assert_close(one_to_k(queries, candidates, temperature=0.4), both_ways)
    loss = one_to_k(torch.tensor([EAST, NORTH]), torch.tensor([EAST, NORTH_EAST, NORTH, NORTH]), temperature=1.0)
    there = [softmax(1, R, 0, 0), softmax(0, R, 1, 1)]
    back = [softmax(1, 0)[0], 0.5, softmax(1, 0)[0], softmax(1, 0)[0]]
    forward = -(math.log(there[0][0]) + math.log(there[0][1]) + math.log(there[1][2]) + math.log(there[1][3])) / 4
    assert loss.item() == pytest.approx((forward - sum(map(math.log, back)) / 4) / 2, rel=1e-5)


def test_distillation_is_zero_for_equal_similarities_and_by_hand_else() -> None:
    teacher = vectors(4, 7)
    turned = teacher @ torch.linalg.qr(vectors(7, 7, seed=3)).Q  # another basis, the same similarities
    assert similarity_distillation(turned, teacher).item() == pytest.approx(0, abs=1e-9)
    loss = similarity_distillation(torch.tensor([EAST, NORTH]), torch.tensor([EAST, NORTH_EAST]), temperature=1.0)
    assert loss.item() == pytest.approx(kl(softmax(1, R), softmax(1, 0)), rel=1e-5)
    hotter = similarity_distillation(
        torch.tensor([EAST, NORTH]), torch.tensor([EAST, NORTH_EAST]), temperature=1.0, teacher_temperature=0.5
    )
    assert hotter.item() == pytest.approx(kl(softmax(2, 2 * R), softmax(1, 0)), rel=1e-5)


def test_distillation_without_each_vector_itself_by_hand() -> None:
    """Where East alone would be left out by hand: of three vectors, each has a distribution over the two others."""
    teacher, student = torch.tensor([EAST, NORTH_EAST, NORTH]), torch.tensor([EAST, NORTH, NORTH])
    loss = similarity_distillation(student, teacher, temperature=1.0, exclude_self=True)
    parts = [(softmax(R, 0), softmax(0, 0)), (softmax(R, R), softmax(0, 1)), (softmax(0, R), softmax(0, 1))]
    assert loss.item() == pytest.approx(sum(kl(*part) for part in parts) / 3, rel=1e-5)


def test_a_cold_distribution_teaches_little_unless_each_vector_is_left_out_of_its_own() -> None:
    teacher = vectors(32, 16)
    sizes = []
    for exclude_self in (False, True):
        student = vectors(32, 16, seed=1).requires_grad_()
        similarity_distillation(student, teacher, temperature=0.02, exclude_self=exclude_self).backward()
        sizes.append(student.grad.norm().item() if student.grad is not None else 0.0)
    assert sizes[1] > 100 * sizes[0]


def test_score_distillation_by_hand() -> None:
    loss = score_distillation(
        torch.tensor([EAST]),
        torch.tensor([[EAST, NORTH]]),
        torch.tensor([[0.2, 0.7]]),
        temperature=1.0,
        score_temperature=0.5,
    )
    judged, ours = softmax(0.4, 1.4), softmax(1, 0)
    assert loss.item() == pytest.approx((kl(judged, ours) + kl(ours, judged)) / 2, rel=1e-5)


# Geometry


def test_alignment_and_uniformity_by_hand() -> None:
    queries, candidates = torch.tensor([EAST, NORTH]), torch.tensor([NORTH, NORTH])
    labels = torch.tensor([0, 1])
    assert alignment(queries, candidates, labels).item() == pytest.approx(1.0)  # distances sqrt 2 and 0
    assert alignment(queries, candidates, labels, power=1).item() == pytest.approx(R, abs=1e-5)
    spread = uniformity(torch.tensor([EAST, NORTH, NORTH]), t=1.0)
    assert spread.item() == pytest.approx(math.log((2 * math.exp(-2) + 1) / 3), rel=1e-5)


def test_the_great_circle_is_followed() -> None:
    first, second = torch.tensor([EAST]), torch.tensor([NORTH])
    torch.testing.assert_close(slerp(first, second, 1.0), first, atol=1e-5, rtol=0)
    torch.testing.assert_close(slerp(first, second, 0.0), second, atol=1e-5, rtol=0)
    torch.testing.assert_close(slerp(first, second, 0.5), torch.tensor([NORTH_EAST]))
    assert torch.isfinite(slerp(first, first, 0.3)).all()


def test_mixup_with_the_positives_alone_is_info_nce() -> None:
    queries, candidates = vectors(3, 4), vectors(3, 4, seed=1)
    labels = torch.tensor([2, 0, 1])
    mixed = geodesic_mixup(queries, candidates, labels, share=0.0, temperature=0.5)
    own_side = torch.nn.functional.normalize(candidates[labels], dim=1)
    forward = info_nce(queries, candidates, labels, temperature=0.5)
    backward = info_nce(own_side, own_side, FIRST_THREE, temperature=0.5)
    right = (torch.nn.functional.normalize(queries, dim=1) * own_side).sum(dim=1)
    logits = own_side @ own_side.T
    logits[torch.arange(3), torch.arange(3)] = right
    backward = torch.nn.functional.cross_entropy(logits / 0.5, FIRST_THREE)
    torch.testing.assert_close(mixed, (forward + backward) / 2, atol=1e-6, rtol=1e-5)


# All of them

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "info_nce, symmetric": lambda q, c: info_nce(q, c, FIRST_THREE, temperature=0.4, symmetric=True),
    "soft_info_nce": lambda q, c: soft_info_nce(
        q, c, torch.tensor([[2.0, 0, 1], [0, 1, 0], [1, 1, 1]]), temperature=0.4
    ),
    "siglip": lambda q, c: siglip(q, c, FIRST_THREE, scale=2.0, bias=-1.0),
    "cwcl": lambda q, c: cwcl(q, c, vectors(3, 5, seed=9), temperature=0.4),
    "one_to_k": lambda q, c: one_to_k(q, c, temperature=0.4),
    "similarity_distillation": lambda q, c: similarity_distillation(torch.cat([q, c]), vectors(6, 5), temperature=0.4),
    "score_distillation": lambda q, c: score_distillation(
        q, c[None].expand(3, -1, -1), vectors(3, 3), temperature=0.4, score_temperature=1.0
    ),
    "alignment": lambda q, c: alignment(q, c, FIRST_THREE),
    "alignment, other power": lambda q, c: alignment(q, c, FIRST_THREE, power=1.5),
    "uniformity": lambda q, c: uniformity(torch.cat([q, c])),
    "geodesic_mixup": lambda q, c: geodesic_mixup(q, c, FIRST_THREE, share=0.3, temperature=0.4),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name: str) -> None:
    inputs = vectors(3, 6).requires_grad_(), vectors(3, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], inputs)


@pytest.mark.parametrize("name", LOSSES)
def test_lengths_of_vectors_do_not_matter_and_half_precision_is_widened(name: str) -> None:
    queries, candidates = vectors(3, 6).bfloat16(), vectors(3, 6, seed=1).bfloat16()
    loss = LOSSES[name](queries, candidates)
    with torch.autocast("cpu", torch.bfloat16):
        scaled = LOSSES[name](8 * queries, candidates / 4)  # powers of two are exact in bfloat16
    torch.testing.assert_close(loss, scaled, check_dtype=False)
    assert loss.item() == pytest.approx(LOSSES[name](queries.double(), candidates.double()).item(), rel=1e-5)
