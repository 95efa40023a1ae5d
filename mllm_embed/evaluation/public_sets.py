"""Public test sets in the files that their makers publish: which there are, and what reads each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError
from mllm_embed.evaluation.mmeb import mmeb_tasks
from mllm_embed.evaluation.mmeb_v2 import mmeb_v2_tasks
from mllm_embed.evaluation.public_beir import mrmr, vidore
from mllm_embed.evaluation.public_captions import captioned, sharegpt4v, urban1k
from mllm_embed.evaluation.public_composed import circo, cirr, fashioniq
from mllm_embed.evaluation.public_compositional import sugarcrepe, winoground
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_languages import wit, xtd
from mllm_embed.evaluation.public_texts import sts

Build = Callable[[PublicFolder, int | None], list[EvalTask]]
"""Takes the folder and an upper limit of queries per task (the first in hash order; None takes all)."""
SUITES: dict[str, Build] = {
    "mmeb": mmeb_tasks,
    "mmeb-v2": mmeb_v2_tasks,
    "flickr30k": partial(captioned, name="flickr30k", file="dataset_flickr30k.json"),
    "coco": partial(captioned, name="coco", file="dataset_coco.json"),
    "urban1k": urban1k,
    "sharegpt4v": sharegpt4v,
    "sugarcrepe": sugarcrepe,
    "winoground": winoground,
    "cirr": cirr,
    "fashioniq": fashioniq,
    "circo": circo,
    "xtd": xtd,
    "wit": wit,
    "vidore": vidore,
    "mrmr": mrmr,
    "sts": sts,
}
"""Public suites by name."""


def public_tasks(suite: str, folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """Build the wanted tasks of a suite.

    Raises:
        EvaluationError: no such suite or task, or files that are missing, damaged or of another schema.
    """
    if suite not in SUITES:
        raise EvaluationError(f"the suite must be one of {', '.join(SUITES)}, but is {suite!r}")
    try:
        tasks = SUITES[suite](folder, limit)
    except (
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
    ) as error:  # inside a field, where no list of fields reaches
        raise EvaluationError(f"{folder.path} is not in the schema of {suite}: {error!r}") from error
    found = [task for task in tasks if folder.wants(task.name)]
    if unknown := folder.unknown([task.name for task in tasks]):
        raise EvaluationError(
            f"{folder.path} has no task {', '.join(unknown)}, but {', '.join(task.name for task in tasks)}"
        )
    if empty := [task.name for task in found if not all(part.queries for part in task.parts)]:
        raise EvaluationError(f"{folder.path} has no queries for {', '.join(empty)}")
    return found
