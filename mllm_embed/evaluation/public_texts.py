"""Public sets without pictures: semantic textual similarity."""

from __future__ import annotations

from dataclasses import replace

from mllm_embed.evaluation.eval_types import EvalTask, Part
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.evaluation.public_files import PublicFolder
from mllm_embed.evaluation.public_queries import HEADLINE, query
from mllm_embed.evaluation.task_scores import SPEARMAN
from mllm_embed.types import EmbedInput, Text

TASK = "text-to-text"
"""Both sentences of a pair are embedded under this task's instruction for queries, since neither answers the other."""


def sts(folder: PublicFolder, limit: int | None) -> list[EvalTask]:
    """Sentence pairs and how alike people find them: Spearman's correlation with the cosine.

    Schema: the hub's `mteb/stsbenchmark-sts` and its like (Cer et al. 2017): `test.jsonl.gz`, `test.jsonl` or
    `data/test-*.parquet` of `sentence1, sentence2, score`.
    """
    fields = ("sentence1", "sentence2", "score")
    rows = [row for file in _files(folder) for row in folder.records(file, fields)]
    for place, row in enumerate(rows):
        if not isinstance(row["score"], (int, float)):
            folder.problem(f"the score of pair {place} must be a number, but is {row['score']!r}")
        if not str(row["sentence1"]).strip() or not str(row["sentence2"]).strip():
            folder.problem(f"pair {place} has an empty sentence")
    folder.check()
    rows = hash_order(rows, lambda row: f"{row['sentence1']}\0{row['sentence2']}")[:limit]
    queries, candidates = [], []
    for place, row in enumerate(rows):
        asked = query(TASK, (Text(str(row["sentence1"])),), (place,), (place,))
        queries.append(replace(asked, likeness=float(row["score"])))
        candidates.append(EmbedInput((Text(str(row["sentence2"])),), asked.item.instruction))
    part = Part("all", tuple(queries), tuple(candidates), shared=0)
    return [EvalTask(f"sts-{folder.name}", "STS", (part,), HEADLINE, (SPEARMAN,))]


def _files(folder: PublicFolder) -> list[str]:
    for name in ("test.jsonl.gz", "test.jsonl"):
        if (folder.path / name).is_file():
            return [name]
    return folder.files("data/test-*.parquet")
