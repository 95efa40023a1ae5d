"""Stage (b): make the LVLM an embedder, by contrast over homogeneous batches, with GradCache."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mllm_embed.modeling.inputs import ModelInputs
from mllm_embed.tasks import Role, Task
from mllm_embed.types import EmbedInput, RenderedPrompt
from mllm_embed_training import ranks
from mllm_embed_training.errors import CorruptRow
from mllm_embed_training.examples import Example, ExampleTask, Side
from mllm_embed_training.grad_cache import grad_cache_step
from mllm_embed_training.losses import duplicate_mask, first_columns
from mllm_embed_training.losses.cosines import cosines
from mllm_embed_training.losses.row_blocks import by_rows
from mllm_embed_training.objective import LossSection, Targets
from mllm_embed_training.plan import Draw
from mllm_embed_training.prompt_encoder import PromptEncoder
from mllm_embed_training.stage import Metrics
from mllm_embed_training.teacher import TeacherVectors


@dataclass(frozen=True, slots=True)
class PreparedExample:
    """An example rendered: its query, and its candidates, the positive first, then further ones, then negatives."""

    query: RenderedPrompt
    candidates: list[RenderedPrompt]
    query_key: str
    candidate_keys: list[str]
    grades: list[float]
    """Of the positives, in order."""
    scores: list[float]
    """A judge's, of the candidates in order, NaN where there is none."""
    guide: NDArray[np.float32] | None
    """A guide's vector."""


@dataclass(frozen=True, slots=True)
class ContrastiveBatch:
    """Queries and candidates in chunks, those of like length together; rows are counted through a side's chunks.

    Attributes:
        queries: chunks of model inputs, Q rows in all.
        candidates: likewise, C rows in all.
        labels: each query's positive, int64 [Q].
        query_keys: equal where contents are, int64 [Q].
        candidate_keys: likewise, int64 [C].
        right: every right answer, int64 [P, 2] of query and candidate.
        grades: how right it is, float32 [P].
        judged: what a judge has scored, int64 [J, 2] of query and candidate.
        scores: a judge's, float32 [J].
        guide: a guide's vectors, float32 [Q, G], or None.
    """

    queries: list[ModelInputs]
    candidates: list[ModelInputs]
    labels: Tensor
    query_keys: Tensor
    candidate_keys: Tensor
    right: Tensor
    grades: Tensor
    judged: Tensor
    scores: Tensor
    guide: Tensor | None


class ContrastiveStage:
    """Contrastive losses over the library's prompts, media and pooling.

    Args:
        encoder: the model in training.
        tasks: the mixture's tasks.
        loss: the objective.
        guide: vectors by text, for a loss that needs them.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        tasks: Mapping[str, ExampleTask[Example]],
        *,
        loss: LossSection,
        guide: TeacherVectors | None = None,
    ) -> None:
        self.model = encoder.model
        self.sizes = {name: len(task.rows) for name, task in tasks.items()}
        self.answers = {name: partial(_answers, task) for name, task in tasks.items() if task.answer is not None}
        self._encoder = encoder
        self.tasks = tasks
        self._loss = loss
        self._guide = guide

    def prepare(self, draw: Draw) -> PreparedExample:
        """Render query, positives and negatives as the embedder will render them when it is served."""
        task = self.tasks[draw.task]
        example = task.draw(task.rows[draw.row], random.Random(str(draw.seed)))
        if (lack := self._loss.lacks(example)) is not None:
            raise CorruptRow(lack)
        sides = [example.positive, *example.also, *example.negatives]
        return PreparedExample(
            self._render(example.query, example.task, "query"),
            [self._render(side, example.task, "target") for side in sides],
            example.query.key,
            [side.key for side in sides],
            list(example.grades or [1.0] * (1 + len(example.also))),
            _by_candidate(example),
            None if self._guide is None else self._guide.side(example)[2],
        )

    def collate(self, prepared: Sequence[PreparedExample]) -> ContrastiveBatch:
        """Sort queries, and candidates, by length, so that little is padded, and note which are right answers."""
        rows = sorted(prepared, key=lambda one: self._encoder.length(one.query))
        places = [(row, place) for row, one in enumerate(rows) for place in range(len(one.candidates))]
        places.sort(key=lambda at: self._encoder.length(rows[at[0]].candidates[at[1]]))
        column = {at: number for number, at in enumerate(places)}
        right = [
            (row, column[row, place], grade) for row, one in enumerate(rows) for place, grade in enumerate(one.grades)
        ]
        judged = [
            (row, column[row, place], score)
            for row, one in enumerate(rows)
            for place, score in enumerate(one.scores)
            if not math.isnan(score)
        ]
        guides = [one.guide for one in rows if one.guide is not None]
        return ContrastiveBatch(
            queries=self._encoder.chunks([one.query for one in rows]),
            candidates=self._encoder.chunks([rows[row].candidates[place] for row, place in places]),
            labels=torch.tensor([column[row, 0] for row in range(len(rows))]),
            query_keys=_hashes([one.query_key for one in rows]),
            candidate_keys=_hashes([rows[row].candidate_keys[place] for row, place in places]),
            right=torch.tensor([(row, column) for row, column, _ in right]),
            grades=torch.tensor([grade for _, _, grade in right]),
            judged=torch.tensor([(row, column) for row, column, _ in judged], dtype=torch.long).view(-1, 2),
            scores=torch.tensor([score for _, _, score in judged]),
            guide=torch.from_numpy(np.stack(guides)) if guides else None,
        )

    def backward(self, batch: ContrastiveBatch) -> Metrics:
        """Accumulate this rank's part of the gradients of the loss over the batches of all ranks."""
        seen: Metrics = {}
        queries, candidates = (self._encoder.looked_at(chunks) for chunks in (batch.queries, batch.candidates))
        passes = len(queries) + len(candidates)
        loss = grad_cache_step(
            self._encoder.encode,
            queries,
            candidates,
            self._objective(batch, seen),
            idle=ranks.most(passes) - passes,
        )
        tokens = sum(int(chunk["attention_mask"].sum()) for chunk in [*batch.queries, *batch.candidates])
        return {"loss": float(loss), **seen, "tokens": ranks.total(tokens)}

    def _objective(self, batch: ContrastiveBatch, seen: Metrics) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss of a batch's vectors, which also fills in `seen`; who drops it drops its masks."""
        targets = self._targets(batch)

        def loss_of(queries: Tensor, candidates: Tensor) -> Tensor:
            queries, candidates = ranks.gather(queries), ranks.gather(candidates)
            seen["accuracy"] = float(_accuracy(queries, candidates, targets))
            seen["negatives"] = _fair(targets)
            return self._loss.value(queries, candidates, targets)

        return loss_of

    def _targets(self, batch: ContrastiveBatch) -> Targets:
        """Return what is right in the batches of all ranks."""
        device = self._encoder.device
        query_keys, candidate_keys = batch.query_keys.to(device), batch.candidate_keys.to(device)
        offset = torch.tensor([ranks.first_row(query_keys), ranks.first_row(candidate_keys)], device=device)
        right = ranks.gather(batch.right.to(device) + offset)
        labels = ranks.gather(batch.labels.to(device) + offset[1])
        query_keys, candidate_keys = ranks.gather(query_keys), ranks.gather(candidate_keys)
        excluded = duplicate_mask(query_keys.tolist(), candidate_keys.tolist(), labels, right)
        grades = scores = None  # as large as all cosines, hence only on demand
        if self._loss.graded:
            grades = _placed(right, ranks.gather(batch.grades.to(device)), excluded.shape, rest=0.0)
        if self._loss.judged:
            judged = ranks.gather(batch.judged.to(device) + offset)
            scores = _placed(judged, ranks.gather(batch.scores.to(device)), excluded.shape, rest=torch.nan)
        guide = None if batch.guide is None else ranks.gather(batch.guide.to(device))
        first = first_columns(candidate_keys.tolist()).to(device)
        return Targets(labels, excluded, grades, scores, guide, first)

    def _render(self, side: Side, task: Task, role: Role) -> RenderedPrompt:
        return self._encoder.render(EmbedInput(side.content), task.instruction(role))


def _by_candidate(example: Example) -> list[float]:
    """Return a judge's scores of all candidates, NaN for further positives, and for all where any is missing."""
    count = 1 + len(example.negatives)
    positive, *negatives = example.scores if len(example.scores) == count else [math.nan] * count
    return [positive, *[math.nan] * len(example.also), *negatives]


def _answers(task: ExampleTask[Example]) -> NDArray[np.int64]:
    """Number the rows' answers, equal where those are; a corrupt row's answer is like no other."""
    names: list[str] = []
    for index in range(len(task.rows)):
        try:
            names.append(str(task.answer and task.answer(task.rows[index])))
        except CorruptRow:
            names.append(f"corrupt row {index}")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _hashes(keys: Sequence[str]) -> Tensor:
    """Equal keys give equal numbers, on every rank."""
    digests = [hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])


def _placed(places: Tensor, values: Tensor, shape: torch.Size, *, rest: float) -> Tensor:
    """Put values [P] at their places, int64 [P, 2] of row and column, into a matrix of `rest`."""
    return torch.full(shape, rest, device=values.device).index_put((places[:, 0], places[:, 1]), values)


def _fair(targets: Targets) -> float:
    """Return how many different wrong answers a query has, in the mean."""
    count = len(targets.labels)
    by_column = (count - targets.excluded.sum(dim=0)).masked_fill(targets.repeats, 0)  # own positives among them
    return int(by_column.sum() - (~targets.repeats[targets.labels]).sum()) / count


@torch.no_grad()
def _accuracy(queries: Tensor, candidates: Tensor, targets: Targets) -> Tensor:
    """Share of queries whose positive scores highest, excluded candidates apart."""

    def best(rows: slice) -> Tensor:
        similarity = cosines(queries[rows], candidates)
        return similarity.masked_fill(targets.excluded[rows], -torch.inf).argmax(dim=1)

    found = torch.cat(by_rows(best, len(queries), len(candidates)))
    return (found == targets.labels).float().mean()
