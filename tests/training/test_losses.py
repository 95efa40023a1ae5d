"""Losses against closed forms, hand-computed values and finite differences."""

import math

import pytest
import torch
from torch import Tensor

from mllm_embed_training.losses import duplicate_mask, first_columns, info_nce, matryoshka

pytestmark = pytest.mark.fast


def random_vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_candidates_cost_the_logarithm_of_their_number() -> None:
    ones = torch.ones(5, 4)
    assert info_nce(torch.ones(2, 4), ones, torch.tensor([0, 3])).item() == pytest.approx(math.log(5), abs=1e-6)


def test_hand_computed_value() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    candidates = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    # Cosines [[1, r], [0, r]] with r = sqrt(1/2), temperature 1/2.
    r = math.sqrt(0.5)
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(2 * r)))
    second = -math.log(math.exp(2 * r) / (1 + math.exp(2 * r)))
    loss = info_nce(queries, candidates, torch.tensor([0, 1]), temperature=0.5)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)
    back_0 = -math.log(math.exp(2) / (math.exp(2) + 1))
    back_1 = -math.log(0.5)
    loss = info_nce(queries, candidates, torch.tensor([0, 1]), temperature=0.5, symmetric=True)
    assert loss.item() == pytest.approx((first + second + back_0 + back_1) / 4, abs=1e-6)


def test_masked_candidates_count_as_absent_but_never_the_positive() -> None:
    queries, candidates = random_vectors(3, 8), random_vectors(6, 8, seed=1)
    labels = torch.tensor([0, 1, 2])
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[:, 4] = True
    mask[torch.arange(3), labels] = True
    without = info_nce(queries, candidates[[0, 1, 2, 3, 5]], labels)
    torch.testing.assert_close(info_nce(queries, candidates, labels, mask=mask), without)


def test_symmetric_equals_both_directions_with_the_transposed_mask() -> None:
    queries, positives = random_vectors(4, 8), random_vectors(4, 8, seed=1)
    candidates = torch.cat([random_vectors(2, 8, seed=2), positives])
    labels = torch.arange(4) + 2
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[0, 4] = mask[3, 0] = True
    forward = info_nce(queries, candidates, labels, mask=mask)
    backward = info_nce(positives, queries, torch.arange(4), mask=mask[:, 2:].T)
    both = info_nce(queries, candidates, labels, mask=mask, symmetric=True)
    torch.testing.assert_close(both, (forward + backward) / 2)


def test_queries_that_share_a_positive_do_not_compete_for_it() -> None:
    query = random_vectors(1, 8)
    both = torch.cat([query, query])
    loss = info_nce(both, random_vectors(1, 8, seed=1), torch.tensor([0, 0]), symmetric=True)
    assert loss.item() == 0


def test_lengths_of_vectors_do_not_matter() -> None:
    queries, candidates = random_vectors(3, 8), random_vectors(3, 8, seed=1)
    labels = torch.arange(3)
    scaled = info_nce(7 * queries, candidates / 9, labels)
    torch.testing.assert_close(scaled, info_nce(queries, candidates, labels))


def test_half_precision_inputs_and_autocast_compute_in_float32() -> None:
    queries, candidates = random_vectors(16, 32).bfloat16(), random_vectors(16, 32, seed=1).bfloat16()
    labels = torch.arange(16)
    exact = info_nce(queries.double(), candidates.double(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce(queries, candidates, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_gradients_equal_finite_differences(symmetric: bool) -> None:
    labels = torch.tensor([1, 0, 3])
    mask = duplicate_mask([1, 2, 1], ["a", "b", "a", "c", "d"], labels)
    assert mask.any()

    def loss(queries: Tensor, candidates: Tensor) -> Tensor:
        return matryoshka(info_nce, (2, 6), (1, 3))(
            queries, candidates, labels, temperature=0.3, mask=mask, symmetric=symmetric
        )

    inputs = random_vectors(3, 6).requires_grad_(), random_vectors(5, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(loss, inputs)


def test_duplicates_of_the_positive_and_answers_of_equal_queries_are_excluded() -> None:
    # Queries 0 and 2 are equal, with the answers "a" and "c"; columns 3 and 4 are explicit negatives.
    mask = duplicate_mask(["q", "r", "q"], ["a", "b", "c", "a", "x"], torch.tensor([0, 1, 2]))
    assert mask.tolist() == [
        [False, False, True, True, False],
        [False, False, False, False, False],
        [True, False, False, True, False],
    ]


def test_a_batch_of_two_classes_has_no_false_negatives() -> None:
    labels = torch.arange(64)
    classes = [i % 2 for i in range(64)]
    vectors = torch.nn.functional.one_hot(torch.tensor(classes)).float()
    mask = duplicate_mask(classes, classes, labels)
    assert info_nce(vectors, vectors, labels, mask=mask, symmetric=True).item() < 1e-6
    assert info_nce(vectors, vectors, labels).item() == pytest.approx(math.log(32), abs=1e-4)


def test_an_answer_of_many_rows_counts_once_as_a_negative() -> None:
    # Two classes: a doubtful query, as near to the one as to the other, of the rare class "b".
    answers = ["a", "a", "a", "b", "a"]
    labels = torch.arange(5)
    first = first_columns(answers)
    assert first.tolist() == [0, 0, 0, 3, 0]
    mask = duplicate_mask(range(5), answers, labels)
    classes = torch.tensor([[1.0, 0.0] if answer == "a" else [0.0, 1.0] for answer in answers])
    queries = torch.ones(5, 2)
    assert info_nce(queries, classes, labels, mask=mask, first=first).item() == pytest.approx(math.log(2))
    each_time = info_nce(queries, classes, labels, mask=mask)
    assert each_time.item() == pytest.approx((4 * math.log(2) + math.log(5)) / 5)


def test_an_answer_that_counts_once_still_finds_its_queries() -> None:
    answers = ["a", "b", "a", "c"]
    labels = torch.arange(4)
    mask, first = duplicate_mask(range(4), answers, labels), first_columns(answers)
    queries, candidates = random_vectors(4, 6), random_vectors(4, 6, seed=1)[first]
    both = info_nce(queries, candidates, labels, mask=mask, first=first, symmetric=True)
    similarity = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(candidates).T / 0.02
    there = [[0, 1, 3], [1, 0, 3], [2, 1, 3], [3, 0, 1]]  # own first, then one column of each other answer
    back = [[0, 1, 3], [1, 0, 2, 3], [2, 1, 3], [3, 0, 1, 2]]  # own query first, then all of other answers
    losses = [-similarity[row, columns].log_softmax(0)[0] for row, columns in enumerate(there)]
    backwards = [-similarity[rows, column].log_softmax(0)[0] for column, rows in enumerate(back)]
    shares = [1 / 2, 1, 1 / 2, 1]  # the two queries of "a" have one weight together
    losses += [share * loss for share, loss in zip(shares, backwards, strict=True)]
    torch.testing.assert_close(both, torch.stack(losses).sum() / 8)


def test_matryoshka_averages_cut_vectors() -> None:
    queries, candidates = random_vectors(4, 8), random_vectors(4, 8, seed=1)
    labels = torch.arange(4)
    narrow, wide = (info_nce(queries[:, :d], candidates[:, :d], labels) for d in (2, 8))
    torch.testing.assert_close(matryoshka(info_nce, (2, 8))(queries, candidates, labels), (narrow + wide) / 2)
    weighted = matryoshka(info_nce, (2, 8), (3, 1))(queries, candidates, labels)
    torch.testing.assert_close(weighted, (3 * narrow + wide) / 4)


def test_a_width_of_weight_zero_is_as_if_absent() -> None:
    queries, candidates = random_vectors(4, 8), random_vectors(4, 8, seed=1)
    labels = torch.arange(4)
    loss = matryoshka(info_nce, (2, 8), (0, 1))(queries, candidates, labels)
    assert loss.item() == info_nce(queries, candidates, labels).item()


@pytest.mark.parametrize(
    ("dims", "weights", "message"),
    [
        ((), None, "at least one"),
        ((4, 4), None, "each once"),
        ((0, 4), None, "positive"),
        ((2, 4), (1,), "must be 2 numbers"),
        ((2, 4), (0, 0), "not all 0"),
    ],
)
def test_bad_widths_are_refused(dims: tuple[int, ...], weights: tuple[float, ...] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matryoshka(info_nce, dims, weights)


def test_bad_shapes_are_refused() -> None:
    vectors, labels = torch.ones(2, 4), torch.arange(2)
    with pytest.raises(ValueError, match=r"\[Q, D\] and \[C, D\]"):
        info_nce(vectors, torch.ones(2, 5), labels)
    with pytest.raises(ValueError, match="labels must have the shape"):
        info_nce(vectors, vectors, torch.arange(3))
    with pytest.raises(ValueError, match="temperature must be positive"):
        info_nce(vectors, vectors, labels, temperature=0)
    with pytest.raises(ValueError, match="mask must be bool"):
        info_nce(vectors, vectors, labels, mask=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="the lowest column with its content"):
        info_nce(vectors, vectors, labels, first=torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="at most 4"):
        matryoshka(info_nce, (2, 8))(vectors, vectors, labels)
    with pytest.raises(ValueError, match="one is 5"):
        duplicate_mask([1, 2], [1, 2], torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="labels must have the shape"):
        duplicate_mask([1, 2], [1, 2], torch.tensor([0]))
