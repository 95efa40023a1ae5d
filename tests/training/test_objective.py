"""The objective of a recipe is the weighted sum of the losses that it names."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mllm_embed_training import losses
from mllm_embed_training.objective import LossSection, Targets

pytestmark = pytest.mark.fast


def batch() -> tuple[Tensor, Tensor, Targets]:
    generator = torch.Generator().manual_seed(0)
    queries, candidates = (torch.randn(8, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    excluded = torch.zeros(8, 8, dtype=torch.bool)
    excluded[0, 5] = True
    return queries, candidates, Targets(torch.arange(8), excluded)


def rich_batch() -> tuple[Tensor, Tensor, Targets]:
    """Four queries with two positives and one negative each, a judge's scores, and a guide's vectors."""
    generator = torch.Generator().manual_seed(1)
    queries, candidates, guide = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (4, 12, 4))
    own = torch.eye(4, dtype=torch.float64).repeat(1, 3)  # of query i: the columns i, i + 4 and i + 8
    grades, scores = own.clone(), torch.where(own > 0, own, torch.nan)
    grades[:, 8:] = 0
    scores[:, 4:8] = torch.nan
    scores[:, 8:] *= 0.3
    excluded = (grades > 0) & ~torch.eye(4, 12, dtype=torch.bool)
    return queries, candidates, Targets(torch.arange(4), excluded, grades, scores, guide)


def value(**section: Any) -> Tensor:
    return LossSection.model_validate(section).value(*batch())


def rich_value(**section: Any) -> Tensor:
    return LossSection.model_validate(section).value(*rich_batch())


def test_nothing_named_is_info_nce() -> None:
    queries, candidates, targets = batch()
    expected = losses.info_nce(queries, candidates, targets.labels, mask=targets.excluded, symmetric=True)
    torch.testing.assert_close(LossSection().value(queries, candidates, targets), expected)


def test_filter_and_hardest_are_unimes_second_stage() -> None:
    queries, candidates, targets = batch()
    unit = torch.nn.functional.normalize
    similarity = unit(queries, dim=1) @ unit(candidates, dim=1).T
    excluded = targets.excluded | losses.false_negative_mask(similarity, targets.labels, 0.1)
    mask = losses.easy_mask(similarity, targets.labels, excluded, 2)
    expected = losses.info_nce(queries, candidates, targets.labels, temperature=0.5, mask=mask)
    settings = {"temperature": 0.5, "symmetric": False, "false_negative_margin": 0.1, "hardest": 2}
    torch.testing.assert_close(value(info_nce=settings), expected)
    assert not torch.equal(value(info_nce=settings), value(info_nce={**settings, "hardest": None}))


NAMED: dict[str, dict[str, Any]] = {
    "info_nce": {"temperature": 0.3, "hardness": 2.0},
    "soft_info_nce": {"temperature": 0.3},
    "siglip": {"scale": 4.0, "bias": -2.0},
    "alignment": {"power": 1.5},
    "uniformity": {"t": 1.0},
    "geodesic_mixup": {"share": 0.3, "temperature": 0.3},
    "cwcl": {"temperature": 0.3},
    "one_to_k": {"k": 2, "temperature": 0.3},
    "score_distillation": {"temperature": 0.3, "score_temperature": 0.5},
}


def test_every_term_has_a_case() -> None:
    assert set(NAMED) == set(LossSection.model_fields) - {"matryoshka"}


@pytest.mark.parametrize("name", NAMED)
def test_terms_are_weighted_and_added(name: str) -> None:
    base = {"info_nce": {"temperature": 0.7}} if name != "info_nce" else {"siglip": {}}
    alone, other = rich_value(**{name: NAMED[name]}), rich_value(**base)
    both = rich_value(**base, **{name: {**NAMED[name], "weight": 0.25}})
    assert alone.abs() > 1e-3
    torch.testing.assert_close(both, other + 0.25 * alone)
    torch.testing.assert_close(rich_value(**base, **{name: {**NAMED[name], "weight": 0}}), other)


def test_a_guide_weighs_the_positives_of_the_batch() -> None:
    queries, candidates, targets = rich_batch()
    assert targets.guide is not None
    expected = losses.cwcl(queries, candidates[:4], targets.guide, temperature=0.3)
    torch.testing.assert_close(rich_value(cwcl={"temperature": 0.3}), expected)


def test_all_positives_of_a_query_come_to_it_at_once() -> None:
    queries, candidates, _ = rich_batch()
    by_query = candidates[[0, 4, 1, 5, 2, 6, 3, 7]]
    expected = losses.one_to_k(queries, by_query, temperature=0.3)
    torch.testing.assert_close(rich_value(one_to_k={"k": 2, "temperature": 0.3}), expected)


def test_a_judge_ranks_each_querys_own_candidates_however_many() -> None:
    queries, candidates, targets = rich_batch()
    assert targets.scores is not None
    own = torch.stack([candidates[:4], candidates[8:]], dim=1)
    scores = torch.tensor([[1.0, 0.3]] * 4, dtype=torch.float64)
    settings = {"temperature": 0.3, "score_temperature": 0.5}
    torch.testing.assert_close(
        rich_value(score_distillation=settings), losses.score_distillation(queries, own, scores, **settings)
    )
    targets.scores[0, 9] = 0.7  # the first query has three of its own now
    first = losses.score_distillation(
        queries[:1], candidates[[0, 8, 9]][None], torch.tensor([[1.0, 0.3, 0.7]], dtype=torch.float64), **settings
    )
    others = losses.score_distillation(queries[1:], own[1:], scores[1:], **settings)
    term = LossSection.model_validate({"score_distillation": settings})
    torch.testing.assert_close(term.value(queries, candidates, targets), (first + 3 * others) / 4)


def test_grades_reach_the_soft_loss_and_without_any_it_is_info_nce() -> None:
    queries, candidates, targets = batch()
    soft = LossSection.model_validate({"soft_info_nce": {"temperature": 0.5}})
    plain = LossSection.model_validate({"info_nce": {"temperature": 0.5, "symmetric": False}})
    torch.testing.assert_close(soft.value(queries, candidates, targets), plain.value(queries, candidates, targets))
    grades = torch.eye(8, dtype=torch.float64) + 0.5 * torch.eye(8, dtype=torch.float64).roll(1, dims=1)
    expected = losses.soft_info_nce(queries, candidates, grades, temperature=0.5, mask=targets.excluded)
    graded = soft.value(queries, candidates, Targets(targets.labels, targets.excluded, grades))
    torch.testing.assert_close(graded, expected)
    assert not torch.equal(graded, soft.value(queries, candidates, targets))


def test_widths_are_averaged_by_weight() -> None:
    queries, candidates, targets = batch()
    one = LossSection.model_validate({"info_nce": {"temperature": 0.5}})
    cut = one.value(queries[:, :2], candidates[:, :2], targets)
    full = one.value(queries, candidates, targets)
    settings = {"dimensions": [2], "weights": [3, 1]}
    torch.testing.assert_close(value(info_nce={"temperature": 0.5}, matryoshka=settings), (3 * cut + full) / 4)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"info_nse": {}}, "info_nse"),
        ({"info_nce": {"tau": 1}}, "tau"),
        ({"info_nce": {"hardest": 0}}, "greater than or equal to 1"),
        ({"info_nce": {"weight": 0}}, "at least one loss needs a weight above 0"),
        ({"matryoshka": {"dimensions": [2], "weights": [1]}}, "weights must be 2"),
    ],
)
def test_bad_settings_are_refused(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        LossSection.model_validate(section)


def test_of_the_hardest_each_answer_is_one() -> None:
    """Eight queries of four classes, two each: the hardest two of three wrong answers, both directions by hand."""
    answers = ["a", "a", "b", "b", "c", "c", "d", "d"]
    labels, classes = torch.arange(8), [0, 0, 2, 2, 4, 4, 6, 6]
    generator = torch.Generator().manual_seed(2)
    queries, names = (torch.randn(8, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    first = losses.first_columns(answers)
    assert first.tolist() == classes
    candidates = names[first]
    targets = Targets(labels, losses.duplicate_mask(range(8), answers, labels), first=first)
    settings = {"temperature": 0.5, "symmetric": True, "hardest": 2}
    found = LossSection.model_validate({"info_nce": settings}).value(queries, candidates, targets)

    unit = torch.nn.functional.normalize
    similarity = unit(queries, dim=1) @ unit(candidates, dim=1).T
    wrong = [[column for column in (0, 2, 4, 6) if column != own] for own in classes]
    kept = [sorted(columns, key=lambda column: similarity[row, column])[1:] for row, columns in enumerate(wrong)]
    there = [similarity[row, [row, *kept[row]]] for row in range(8)]
    rivals = [[row for row in range(8) if own in kept[row]] for own in classes]
    back = [similarity[[column, *rivals[column]], column] for column in range(8)]
    loss_there, loss_back = ([-(cosines / 0.5).log_softmax(0)[0] for cosines in way] for way in (there, back))
    # The two queries of a class have one weight together on the way back.
    torch.testing.assert_close(found, (torch.stack(loss_there).mean() + torch.stack(loss_back).mean() / 2) / 2)


def test_an_answer_counts_once_under_the_soft_loss_too() -> None:
    answers = ["a", "a", "b", "c", "c", "c", "d", "e"]
    queries, candidates, _ = batch()
    first, labels = losses.first_columns(answers), torch.arange(8)
    targets = Targets(labels, losses.duplicate_mask(range(8), answers, labels), first=first)
    soft = LossSection.model_validate({"soft_info_nce": {"temperature": 0.5}})
    plain = LossSection.model_validate({"info_nce": {"temperature": 0.5, "symmetric": False}})
    found = soft.value(queries, candidates[first], targets)
    torch.testing.assert_close(found, plain.value(queries, candidates[first], targets))
    assert not torch.equal(found, soft.value(queries, candidates[first], Targets(labels, targets.excluded)))


def test_an_answer_counts_once_under_the_sigmoid_loss_too() -> None:
    """Eight queries of three classes: a query's pairs are its own, right, and the other classes, wrong, once each."""
    answers = ["a", "a", "b", "c", "c", "c", "c", "b"]
    queries, candidates, _ = batch()
    first, labels = losses.first_columns(answers), torch.arange(8)
    targets = Targets(labels, losses.duplicate_mask(range(8), answers, labels), first=first)
    settings: dict[str, Any] = {"scale": 4.0, "bias": -2.0}
    found = LossSection.model_validate({"siglip": settings}).value(queries, candidates[first], targets)
    classes = [0, 2, 3]  # the columns of a, b and c
    own = torch.tensor([classes.index(column) for column in first.tolist()])
    torch.testing.assert_close(found, losses.siglip(queries, candidates[classes], own, **settings))
