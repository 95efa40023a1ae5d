"""`mllm-embed mine`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from mllm_embed.model_dir import BUILT_IN
from mllm_embed.tasks import DEFAULT
from mllm_embed_training.mining import options


def mine(
    dataset: options.Dataset,
    *,
    output: options.Output,
    overwrite: options.Overwrite = False,
    corpus: options.Corpus = None,
    add_positives: options.AddPositives = False,
    schema: options.Schema = "pairs",
    images: options.Images = None,
    own_negatives: options.OwnNegatives = "keep",
    skip_corrupt: options.SkipCorrupt = False,
    model: options.Model = None,
    backend: options.Engine = "auto",
    precision: options.Precision = "float32",
    task: options.TaskName = DEFAULT,
    query_instruction: options.QueryInstruction = None,
    target_instruction: options.TargetInstruction = None,
    truncate: options.Cut = "none",
    batch_size: options.BatchSize = 64,
    cache: options.Cache = None,
    query_vectors: options.QueryVectors = None,
    target_vectors: options.TargetVectors = None,
    per_query: options.PerQuery = 8,
    skip: options.Skip = 0,
    window: options.Window = 100,
    max_relative: options.MaxRelative = 0.95,
    margin: options.Margin = None,
    max_score: options.MaxScore = None,
    pick: options.Pick = "top",
    seed: options.Seed = 0,
) -> None:
    """Find hard negatives for the rows of a data set: candidates that a model takes for right and that are not.

    Each query is compared with a corpus of texts, pictures or both. Of the ranks after --skip, --window candidates are
    looked at; those that score too close to the positive are probably right answers that nobody marked, and are
    dropped; of the rest, --per-query become negatives. Never a negative: the query itself, a positive of any row with
    an equal query, or anything equal to these (text but for case and spacing, pictures by their bytes).

    The output folder holds mined.jsonl (the same rows with `negatives`, `negative_scores` and `positive_score`, for a
    recipe's data.files), report.md and report.json (counts, scores, doubtful examples), and scores.png. It appears when
    it is complete. Vectors are kept: after a kill the same command goes on where it was, and other limits cost no new
    embedding.

    Examples:

      mllm-embed mine pairs.jsonl --output mined

      mllm-embed mine captions.parquet --corpus photos.jsonl --add-positives --task text-to-image --output mined

      mllm-embed mine pairs.jsonl --skip 10 --window 50 --max-relative 0.9 --pick random --seed 1 --output mined

      mllm-embed mine pairs.jsonl --query-vectors queries.parquet --target-vectors targets.parquet --output mined
    """
    from mllm_embed.errors import InvalidInput
    from mllm_embed.tasks import Task, get_task
    from mllm_embed_training.mining.rules import Rules
    from mllm_embed_training.mining.run import GivenVectors, Sources, run
    from mllm_embed_training.mining.vectors import Encoding

    if (query_vectors is None) != (target_vectors is None):
        raise InvalidInput("--query-vectors and --target-vectors must be given together")
    if query_vectors is not None and model is not None:
        raise InvalidInput("vectors come from --model or from --query-vectors and --target-vectors, not from both")
    known = get_task(task)
    wording = Task(
        known.name,
        known.query if query_instruction is None else query_instruction,
        known.target if target_instruction is None else target_instruction,
    )
    report = run(
        Sources(
            dataset=dataset,
            schema=schema,
            images=images,
            task=wording,
            own_negatives=own_negatives,
            corpus=corpus,
            add_positives=add_positives,
            skip_corrupt=skip_corrupt,
        ),
        Encoding(model or BUILT_IN, backend, precision, truncate, batch_size)
        if query_vectors is None or target_vectors is None
        else GivenVectors(query_vectors, target_vectors),
        Rules(
            per_query=per_query,
            skip=skip,
            window=window,
            max_relative=max_relative,
            margin=margin,
            max_score=max_score,
            pick=pick,
            seed=seed,
        ),
        output,
        overwrite=overwrite,
        cache=cache,
    )
    typer.echo(_summary(report, output, per_query))


def _summary(report: Mapping[str, Any], output: Path, per_query: int) -> str:
    found = report["negatives"]
    short = found["rows_with_fewer"] + found["rows_with_none"]
    return (
        f"{output}: {report['rows']:,} rows, {found['mined']:,} negatives mined"
        + (f"; {short:,} rows have fewer than {per_query}" if short else "")
        + (f"; {len(report['skipped']):,} rows could not be used" if report["skipped"] else "")
        + f"; see {output / 'report.md'}"
    )
