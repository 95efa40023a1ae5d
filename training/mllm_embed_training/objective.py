"""The contrastive objective of a recipe: named losses with their settings, weighted, added up, over nested widths.

    loss:
      info_nce: {temperature: 0.02, false_negative_margin: 0.1, hardest: 8}
      uniformity: {weight: 0.1}
      matryoshka: {dimensions: [64, 128]}

Each field of `LossSection` is one loss of `mllm_embed_training.losses`; here are only its settings and how the batch's
targets reach it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mllm_embed_training import losses
from mllm_embed_training.examples import Example
from mllm_embed_training.losses.cosines import cosines, own_columns
from mllm_embed_training.losses.row_blocks import by_rows
from mllm_embed_training.section import Positive, Section

Temperature = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class Targets:
    """What is right in a batch.

    Attributes:
        labels: column of each query's positive, int64 [Q].
        excluded: bool [Q, C], True where a candidate is no fair negative; other right answers are none.
        grades: how right each candidate is, at least 0, float [Q, C]; above 0 for the label and other right answers;
            None if no loss asks for it.
        scores: a judge's, of each query's own candidates, float [Q, C], NaN for all others; None likewise.
        guide: a frozen guide's vectors of the queries or their positives, float [Q, G]; None without one.
        first: the first column with each candidate's content, int64 [C]; None if all contents differ.
    """

    labels: Tensor
    excluded: Tensor
    grades: Tensor | None = None
    scores: Tensor | None = None
    guide: Tensor | None = None
    first: Tensor | None = None

    @property
    def repeats(self) -> Tensor:
        """Which candidates repeat the content of an earlier one, bool [C]."""
        columns = torch.arange(self.excluded.shape[1], device=self.excluded.device)
        return torch.zeros_like(columns, dtype=torch.bool) if self.first is None else self.first != columns

    @property
    def unfair(self) -> Tensor:
        """What is no negative of a query: what is excluded, and repeats, bool [Q, C]."""
        return self.excluded | self.repeats


class Term(Section, ABC):
    """One loss of the sum."""

    weight: float = Field(default=1.0, ge=0)
    """Factor; a loss of weight 0 is not computed."""

    @abstractmethod
    def value(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return the loss of queries [Q, D] and candidates [C, D], a scalar."""

    def lacks(self, example: Example) -> str | None:
        """Say what an example lacks for this loss, or return None."""
        del example
        return None


class InfoNce(Term):
    """Tell the positive from all other candidates (`losses.info_nce`)."""

    temperature: Temperature = 0.02
    """Divides the cosines."""
    symmetric: bool = True
    """Also tell the query of each positive among all queries."""
    false_negative_margin: float | None = None
    """Leave out candidates that are more similar to the query than its positive by this margin; UniME has 0.1."""
    hardest: Positive | None = None
    """Contrast with this many most similar negatives only; UniME has 8."""
    hardness: float = Field(default=0.0, ge=0)
    """Weigh negatives by exp(hardness * cosine); LLaVE has 9."""

    def value(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return the loss; masks are made from the present cosines and carry no gradient."""
        return losses.info_nce(
            queries,
            candidates,
            targets.labels,
            temperature=self.temperature,
            mask=self._excluded(queries, candidates, targets),
            first=targets.first,
            symmetric=self.symmetric,
            hardness=self.hardness,
        )

    @torch.no_grad()
    def _excluded(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return what is no fair negative, or not hard enough, bool [Q, C]."""
        if self.false_negative_margin is None and self.hardest is None:
            return targets.excluded

        def of(rows: slice) -> Tensor:
            similarity, labels = cosines(queries[rows], candidates), targets.labels[rows]
            excluded = targets.excluded[rows] | targets.repeats
            if self.false_negative_margin is not None:
                excluded = excluded | losses.false_negative_mask(similarity, labels, self.false_negative_margin)
            if self.hardest is not None:
                excluded = losses.easy_mask(similarity, labels, excluded, self.hardest)
            return excluded

        return torch.cat(by_rows(of, len(queries), len(candidates)))


class SoftInfoNce(Term):
    """Match the softmax over the candidates to the rows' grades, all right answers in it (`losses.soft_info_nce`)."""

    temperature: Temperature = 0.02
    """Divides the cosines."""

    def value(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return the loss; without grades the label is the only right answer, and this is `info_nce`."""
        grades = targets.grades
        if grades is None:
            grades = own_columns(targets.labels, len(candidates)).to(queries.dtype)
        mask = targets.unfair  # what has a grade is never excluded
        return losses.soft_info_nce(queries, candidates, grades, temperature=self.temperature, mask=mask)


class SigLip(Term):
    """Decide for every pair on its own (`losses.siglip`)."""

    scale: float = Field(default=10.0, gt=0)
    """Multiplies the cosines."""
    bias: float = -10.0
    """Is added to them."""

    def value(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return the loss."""
        return losses.siglip(queries, candidates, targets.labels, scale=self.scale, bias=self.bias, mask=targets.unfair)


class Alignment(Term):
    """Bring queries and their positives together (`losses.alignment`)."""

    power: float = Field(default=2.0, gt=0)
    """Of the distance."""

    def value(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return the loss."""
        return losses.alignment(queries, candidates, targets.labels, power=self.power)


class Uniformity(Term):
    """Spread queries, and candidates, evenly over the sphere (`losses.uniformity`)."""

    t: float = Field(default=2.0, gt=0)
    """How local the repulsion is."""

    def value(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return the mean of both sides."""
        del targets
        return (losses.uniformity(queries, t=self.t) + losses.uniformity(candidates, t=self.t)) / 2


class GeodesicMixup(Term):
    """Contrast with points between queries and their positives (`losses.geodesic_mixup`)."""

    temperature: Temperature = 0.02
    """Divides the cosines."""
    share: float = Field(default=0.5, ge=0, le=1)
    """Of the query in each mixed point."""

    def value(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return the loss."""
        return losses.geodesic_mixup(
            queries, candidates, targets.labels, share=self.share, temperature=self.temperature
        )


class Cwcl(Term):
    """Weigh candidates by how similar a frozen guide finds their texts (`losses.cwcl`); needs a teacher section."""

    temperature: Temperature = 0.02
    """Divides the cosines."""

    def value(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return the loss of queries and positives; explicit negatives take no part."""
        if targets.guide is None:
            raise ValueError("cwcl needs a guide's vectors")
        positives, excluded = candidates[targets.labels], targets.excluded[:, targets.labels]
        return losses.cwcl(queries, positives, targets.guide, temperature=self.temperature, mask=excluded)


class OneToK(Term):
    """Align each query with all its K positives at once, such as a text in K languages (`losses.one_to_k`)."""

    k: int = Field(ge=2)
    """Positives of every row."""
    temperature: Temperature = 0.02
    """Divides the cosines."""

    def value(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return the loss; explicit negatives take no part."""
        if targets.grades is None:
            raise ValueError("one_to_k needs to know all right answers")
        own = (targets.grades > 0).nonzero()[:, 1]  # by query, K columns each
        return losses.one_to_k(queries, candidates[own], temperature=self.temperature)

    def lacks(self, example: Example) -> str | None:
        """Every row needs K positives."""
        have = 1 + len(example.also)
        return None if have == self.k else f"loss.one_to_k needs {self.k} positives, but the row has {have}"


class ScoreDistillation(Term):
    """Rank each row's own positive and negatives as a judge scored them (`losses.score_distillation`)."""

    temperature: Temperature = 0.02
    """Divides the cosines."""
    score_temperature: Temperature = 0.02
    """Divides the judge's scores."""

    def value(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return the mean over the queries, which may have different numbers of candidates."""
        if targets.scores is None:
            raise ValueError("score_distillation needs a judge's scores")
        judged = ~targets.scores.isnan()  # [Q, C]
        counts = judged.sum(dim=1)
        parts = []
        for k in counts.unique().tolist():
            rows = counts == k
            columns = judged[rows].nonzero()[:, 1].view(-1, k)  # [R, K]
            part = losses.score_distillation(
                queries[rows],
                candidates[columns],
                targets.scores[rows].gather(1, columns),
                temperature=self.temperature,
                score_temperature=self.score_temperature,
            )
            parts.append(part * len(columns) / len(queries))
        return sum(parts[1:], start=parts[0])

    def lacks(self, example: Example) -> str | None:
        """Every row needs negatives, and scores of them and of the positive."""
        if example.negatives and len(example.scores) == 1 + len(example.negatives):
            return None
        return (
            "loss.score_distillation needs negatives, positive_score and as many negative_scores, but the row has "
            f"{len(example.negatives)} negatives and {len(example.scores)} scores"
        )


class Matryoshka(Section):
    """Train leading parts of the vectors to be vectors (`losses.matryoshka`), the full width included."""

    dimensions: tuple[Positive, ...] = ()
    """Widths besides the full one."""
    weights: tuple[float, ...] | None = None
    """Weight of each of them, and of the full width last; all equal if absent."""

    @model_validator(mode="after")
    def _as_many(self) -> Matryoshka:
        wanted = len(self.dimensions) + 1
        if self.weights is not None and len(self.weights) != wanted:
            raise ValueError(f"weights must be {wanted}, with the full width's last, but are {len(self.weights)}")
        if len(set(self.dimensions)) < len(self.dimensions):
            raise ValueError(f"dimensions must differ from each other, but are {list(self.dimensions)}")
        if self.weights is not None and not (min(self.weights) >= 0 and sum(self.weights) > 0):
            raise ValueError(f"weights must be at least 0 and not all 0, but are {list(self.weights)}")
        return self


class LossSection(Section):
    """The contrastive objective; ignored by the generative stage. Without any term, InfoNCE with its defaults."""

    info_nce: InfoNce | None = None
    soft_info_nce: SoftInfoNce | None = None
    siglip: SigLip | None = None
    alignment: Alignment | None = None
    uniformity: Uniformity | None = None
    geodesic_mixup: GeodesicMixup | None = None
    cwcl: Cwcl | None = None
    one_to_k: OneToK | None = None
    score_distillation: ScoreDistillation | None = None
    matryoshka: Matryoshka = Matryoshka()

    @property
    def terms(self) -> list[Term]:
        """The losses that are added up."""
        fields = [getattr(self, name) for name in type(self).model_fields]
        chosen = [field for field in fields if isinstance(field, Term)]
        return [term for term in chosen if term.weight > 0] if chosen else [InfoNce()]

    @model_validator(mode="after")
    def _something_counts(self) -> LossSection:
        if not self.terms:
            raise ValueError("at least one loss needs a weight above 0")
        return self

    def lacks(self, example: Example) -> str | None:
        """Say what an example lacks for one of the losses, or return None."""
        return next((lack for term in self.terms if (lack := term.lacks(example)) is not None), None)

    @property
    def guided(self) -> bool:
        """Whether a loss needs a guide's vectors."""
        return any(isinstance(term, Cwcl) for term in self.terms)

    @property
    def graded(self) -> bool:
        """Whether a loss needs to know all right answers."""
        return any(isinstance(term, SoftInfoNce | OneToK) for term in self.terms)

    @property
    def judged(self) -> bool:
        """Whether a loss needs a judge's scores."""
        return any(isinstance(term, ScoreDistillation) for term in self.terms)

    def value(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        """Return the objective of a batch.

        Args:
            queries: pooled vectors of any length, shape [Q, D].
            candidates: likewise, shape [C, D].
            targets: what is right.

        Returns:
            a scalar: the weighted sum of the terms, averaged over the widths.
        """
        widths = (*self.matryoshka.dimensions, queries.shape[1])
        return losses.matryoshka(self._sum, widths, self.matryoshka.weights)(queries, candidates, targets)

    def _sum(self, queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
        values = [term.weight * term.value(queries, candidates, targets) for term in self.terms]
        return sum(values[1:], start=values[0])
