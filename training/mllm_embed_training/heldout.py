"""Scores on held-out retrieval while training: what a falling loss does not tell."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import EvalTask, Part, Query
from mllm_embed.evaluation.metrics import truth_ranks
from mllm_embed.evaluation.mini_mmeb import build_tasks
from mllm_embed.evaluation.pools import Selection
from mllm_embed.types import EmbedInput
from mllm_embed.vectors import finish
from mllm_embed_training import ranks
from mllm_embed_training.examples import Example, ExampleTask
from mllm_embed_training.prompt_encoder import PromptEncoder
from mllm_embed_training.run_files import HELDOUT, HELDOUT_CURVES, read_lines, write_lines

AT_ONCE = 64
"""Items whose decoded pictures are in memory together."""
Embed = Callable[[Sequence[EmbedInput]], NDArray[np.float32]]
"""Items with their instructions -> unit vectors, float32 [N, D]."""


class HeldOut:
    """Ranks held-out candidates every so many steps, and says which step was best.

    Args:
        run_dir: receives `heldout.jsonl` (a line per measurement) and `heldout.png`.
        tasks: what is ranked.
        embed: the model as it is now.
        every: steps between measurements; the last step is measured too.
    """

    def __init__(self, run_dir: Path, tasks: Sequence[EvalTask], embed: Embed, every: int) -> None:
        self._run_dir = run_dir
        self._tasks = tasks
        self._embed = embed
        self._every = every

    def is_due(self, done: int, steps: int) -> bool:
        """Whether a measurement comes after `done` of `steps` steps."""
        return done % self._every == 0 or done == steps

    def measure(self, done: int) -> bool:
        """Score the model after `done` steps; return whether its mean Hit@1 is above all earlier ones.

        Every rank measures, since ranks may need each other's weights; one writes, and to the others nothing is best.
        """
        scores = {task.name: self._hit(task) for task in self._tasks}
        if ranks.rank() != 0:
            return False
        earlier = [row for row in read_lines(self._run_dir / HELDOUT) if row["step"] < done]
        row = {"step": done, "mean": float(np.mean(list(scores.values()))), **scores}
        write_lines(self._run_dir / HELDOUT, [*earlier, row])
        self._draw([*earlier, row])
        return all(row["mean"] > one["mean"] for one in earlier)

    def _hit(self, task: EvalTask) -> float:
        """Hit@1, the mean over parts."""
        return float(np.mean([self._hit_part(part, task.headline) for part in task.parts]))

    def _hit_part(self, part: Part, headline: str) -> float:
        queries = [query for query in part.queries if headline in query.slices]
        ranks = truth_ranks(
            self._embed([query.item for query in queries]),
            self._embed(part.candidates),
            [query.truths for query in queries],
            shared=part.shared,
            extras=[query.extras for query in queries],
        )
        return float(np.mean([found[0] == 1 for found in ranks]))

    def _draw(self, rows: Sequence[Mapping[str, Any]]) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), layout="constrained")
        axis = figure.subplots()
        for name in (key for key in rows[-1] if key != "step"):
            known = [row for row in rows if name in row]
            style = {"linewidth": 2.5, "color": "black"} if name == "mean" else {"linewidth": 1.2}
            axis.plot([row["step"] for row in known], [row[name] for row in known], marker=".", label=name, **style)
        axis.set(xlabel="step", ylabel="Hit@1", title="held-out retrieval")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
        figure.savefig(self._run_dir / HELDOUT_CURVES, dpi=110)


def trained_embedder(encoder: PromptEncoder) -> Embed:
    """Embed with the model that is being trained, as serving would: without dropout. Its mode is left as it was."""

    @torch.no_grad()
    def embed_part(items: Sequence[EmbedInput]) -> list[NDArray[np.float32]]:
        chunks = encoder.chunks([encoder.render(item, item.instruction or "") for item in items])
        return [encoder.encode(chunk).cpu().numpy() for chunk in chunks]

    def embed(items: Sequence[EmbedInput]) -> NDArray[np.float32]:
        training = encoder.model.training
        encoder.model.eval()
        try:
            parts = [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]
            return finish(np.concatenate([vectors for part in parts for vectors in embed_part(part)]))
        finally:
            encoder.model.train(training)

    return embed


def suite_tasks(folder: Path, names: Sequence[str], limit: int) -> list[EvalTask]:
    """Return tasks of mini-mmeb with pools of at most `limit`.

    Raises:
        EvaluationError: an unknown task, or files that are missing.
    """
    return build_tasks(DataFolder(folder), Selection(pool_limit=limit, train_queries=0), names)


def file_task(name: str, task: ExampleTask[Example], limit: int) -> EvalTask:
    """Make a ranking problem of the first `limit` rows of a held-out file: each row's query over all rows' positives.

    Raises:
        CorruptRow: a row cannot be read; held-out rows are not replaced.
    """
    places: dict[str, int] = {}
    candidates: list[EmbedInput] = []
    queries: list[Query] = []
    for index in range(min(limit, len(task.rows))):
        example = task.draw(task.rows[index], random.Random(index))
        for side in (example.positive, *example.also, *example.negatives):
            if side.key not in places:
                places[side.key] = len(candidates)
                candidates.append(EmbedInput(side.content, example.task.target))
        truths = tuple(places[side.key] for side in (example.positive, *example.also))
        queries.append(Query(EmbedInput(example.query.content, example.task.query), truths, ("test",)))
    return EvalTask(name, "retrieval", (Part("all", tuple(queries), tuple(candidates)),), "test")
