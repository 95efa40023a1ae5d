"""One measurement from beginning to end: tasks, vectors, ranks, numbers, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.diagnostics import diagnose
from mllm_embed.evaluation.encoders import Encoder
from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError
from mllm_embed.evaluation.gallery import task_gallery, vector_map
from mllm_embed.evaluation.html_page import html_page
from mllm_embed.evaluation.mini_mmeb import TASK_NAMES, build_tasks
from mllm_embed.evaluation.pools import Selection
from mllm_embed.evaluation.public_files import FRAMES, PublicFolder
from mllm_embed.evaluation.public_sets import public_tasks
from mllm_embed.evaluation.query_ranks import QueryRanks, ranks_file, write_ranks
from mllm_embed.evaluation.report import Report, make_report, write_report
from mllm_embed.evaluation.runner import Progress, embed_all, rank_tasks, score_tasks, supported
from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed.types import Image
from mllm_embed.vectors import check_dimensions

BOOTSTRAP_SEED = 0
MINI_MMEB = "mini-mmeb"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """What is measured, and where things lie.

    Attributes:
        suite: `mini-mmeb`, or one of `mllm_embed.evaluation.public_sets.SUITES`.
        data: folder of the data.
        data_name: what a public set in it is called; None takes the folder's name.
        tasks: names of tasks; empty means all.
        frames: the most frames of a clip of a public set; the clips of mini-mmeb have their six.
        selection: what is held out, and pool limits; of a public suite only the limit counts, as queries per task.
        dimensions: width that vectors are cut to; None keeps all.
        cache: folder of vectors; None keeps them in memory only.
        name: name of the model in reports; None takes its own.
    """

    suite: str = MINI_MMEB
    data: Path
    data_name: str | None = None
    tasks: Sequence[str] = ()
    frames: int = FRAMES
    selection: Selection
    dimensions: int | None = None
    cache: Path | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What a measurement leaves.

    Attributes:
        report: JSON values.
        tasks: what was asked.
        outcomes: where each query's right candidates stood.
        store: the vectors of everything.
    """

    report: Report
    tasks: list[EvalTask]
    outcomes: list[QueryRanks]
    store: VectorStore


@dataclass(frozen=True, slots=True)
class Suite:
    """The tasks of a run, what they are called together, the folder they are from, and sets that it does not hold."""

    name: str
    folder: DataFolder | PublicFolder
    tasks: list[EvalTask]
    absent: Sequence[str] = ()


def read_suite(options: RunOptions) -> Suite:
    """Read the data and build the tasks: seconds, before a model is loaded for minutes.

    Raises:
        EvaluationError: an unknown suite or task, or data that do not fit.
    """
    if options.suite == MINI_MMEB:
        data = DataFolder(options.data)
        return Suite(MINI_MMEB, data, build_tasks(data, options.selection, options.tasks or TASK_NAMES))
    folder = PublicFolder(options.data, name=options.data_name, frames=options.frames, only=options.tasks)
    tasks = public_tasks(options.suite, folder, options.selection.pool_limit)
    return Suite(options.suite, folder, tasks, folder.absent)


def run(
    encoder: Encoder,
    suite: Suite,
    options: RunOptions,
    *,
    out: Path,
    progress: AbstractContextManager[Progress],
    started: float,
) -> Run:
    """Measure a model, and write the report and the ranks beside it.

    Args:
        encoder: what is measured.
        suite: on what; tasks with items that the encoder does not take are left out.
        options: how.
        out: the JSON file to write.
        progress: entered while items are embedded.
        started: `time.perf_counter()` when the caller began, for the record of times.

    Raises:
        EvaluationError: options that do not fit the encoder, or no task that it can do. A task with an item that the
            encoder refuses is left out, and stands in the report under `failed`.
    """
    description = encoder.describe()
    check_width(options.dimensions, description)
    tasks = supported(suite.tasks, encoder)
    store = VectorStore(options.cache, description)
    ready = time.perf_counter()
    with progress as tell:
        done = embed_all(tasks, encoder, store, tell)
    failed = done.failures(tasks)
    tasks = [task for task in tasks if task.name not in failed]
    if not tasks:
        raise EvaluationError(f"no task could be measured: {tell_failures(failed)}")
    embedded = time.perf_counter()
    outcomes = rank_tasks(tasks, store, dimensions=options.dimensions)
    report = make_report(
        suite=suite.name,
        model={**description, "name": options.name or description["name"]},
        settings=_settings(options, tasks),
        checksums=suite.folder.checksums(),
        results=score_tasks(tasks, outcomes),
        ranks_sha256=write_ranks(ranks_file(out), outcomes),
        diagnostics=diagnose(tasks, store, dimensions=options.dimensions),
        failed=failed,
    )
    if suite.absent:
        report["absent"] = list(suite.absent)
    seconds = embedded - ready
    report["timing"] = {
        "prepare_s": round(ready - started, 2),
        "embed_s": round(seconds, 2),
        "score_s": round(time.perf_counter() - embedded, 2),
        **done.counts,
        "items_per_s": round(done.counts["embedded"] / seconds, 1) if seconds > 0 else 0.0,
    }
    write_report(out, report)
    return Run(report, tasks, outcomes, store)


def page_of_run(finished: Run, dimensions: int | None = None) -> str:
    """Return the HTML page of one measurement, with its retrievals, misses, similarities and map."""
    galleries = []
    for task in finished.tasks:
        own = [outcome for outcome in finished.outcomes if outcome.task == task.name]
        galleries.append(task_gallery(task, own, finished.store, dimensions=dimensions))
    vectors = vector_map(finished.tasks, finished.store, dimensions=dimensions)
    return html_page([finished.report], galleries=galleries, vectors=vectors)


def tell_failures(failed: Mapping[str, str]) -> str:
    """Return which tasks failed and why, in one line."""
    return "; ".join(f"{name} ({reason})" for name, reason in failed.items())


def check_width(dimensions: int | None, description: dict[str, object]) -> None:
    """Raise an error if vectors of this encoder cannot be cut to `dimensions`."""
    width = description.get("full_dimensions", description.get("dimensions"))
    if isinstance(width, int):
        check_dimensions(dimensions, width)
    elif dimensions is not None:
        raise EvaluationError(f"--dimensions does not apply to {description['name']}")


def _settings(options: RunOptions, tasks: Sequence[EvalTask]) -> dict[str, object]:
    pictures = (sum(isinstance(one, Image) for one in item.content) for task in tasks for item in task.items())
    return {
        "split_prefix": options.selection.prefix,
        "limit_pool": options.selection.pool_limit,
        "train_queries": options.selection.train_queries,
        "dimensions": options.dimensions,
        "bootstrap_seed": BOOTSTRAP_SEED,
        "frames": max(pictures) if options.suite == MINI_MMEB else options.frames,
    }
