"""`mllm-embed mine`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mllm_embed.backends import BackendName
from mllm_embed.model_dir import BUILT_IN
from mllm_embed.tasks import DEFAULT
from mllm_embed.types import Truncate

_READ, _COMPARE, _CHOOSE = "What is read", "How it is compared", "Which candidates become negatives"


def mine(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Rows with `query` and `positive` (or `positives`), and optionally `negatives`, `task`, `id`: .jsonl, "
            ".parquet, .csv, .tar; a pattern names several files."
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output.")] = False,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="Candidates: rows with `text`, `image` or both; default: the data set's positives.",
            rich_help_panel=_READ,
        ),
    ] = None,
    add_positives: Annotated[
        bool,
        typer.Option("--add-positives", help="Add the data set's positives to the corpus.", rich_help_panel=_READ),
    ] = False,
    schema: Annotated[
        Literal["pairs", "mmeb", "webdataset"],
        typer.Option(help="Field names of the rows, as in a recipe's data.files.", rich_help_panel=_READ),
    ] = "pairs",
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of relative picture paths; default: each file's own.", rich_help_panel=_READ),
    ] = None,
    own_negatives: Annotated[
        Literal["keep", "drop"],
        typer.Option(help="Negatives that rows have already: keep them first, or mine anew.", rich_help_panel=_READ),
    ] = "keep",
    skip_corrupt: Annotated[
        bool,
        typer.Option("--skip-corrupt", help="Leave out what cannot be used, and list it.", rich_help_panel=_READ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"A model directory, a hub name, or the built-in model; default: {BUILT_IN}.", rich_help_panel=_COMPARE
        ),
    ] = None,
    backend: Annotated[
        BackendName,
        typer.Option(
            help="Engine; auto takes vLLM where it is installed, else transformers.", rich_help_panel=_COMPARE
        ),
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, float16 or 4bit.", rich_help_panel=_COMPARE)
    ] = "float32",
    task: Annotated[
        str, typer.Option(help="Built-in task of rows that name none; see mllm-embed models.", rich_help_panel=_COMPARE)
    ] = DEFAULT,
    query_instruction: Annotated[
        str | None, typer.Option(help="Your own, instead of the task's.", rich_help_panel=_COMPARE)
    ] = None,
    target_instruction: Annotated[
        str | None, typer.Option(help="Your own, instead of the task's.", rich_help_panel=_COMPARE)
    ] = None,
    truncate: Annotated[
        Truncate,
        typer.Option(help="Cut texts that are too long for the model, or refuse them.", rich_help_panel=_COMPARE),
    ] = "none",
    batch_size: Annotated[
        int, typer.Option(help="Items handed to the engine at once.", min=1, rich_help_panel=_COMPARE)
    ] = 64,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of vectors that are done; default: in your cache folder.", rich_help_panel=_COMPARE),
    ] = None,
    query_vectors: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a model: vectors of all queries, from mllm-embed embed (.parquet or .jsonl).",
            rich_help_panel=_COMPARE,
        ),
    ] = None,
    target_vectors: Annotated[
        Path | None,
        typer.Option(help="The same of all positives, negatives and candidates.", rich_help_panel=_COMPARE),
    ] = None,
    per_query: Annotated[int, typer.Option("--per-query", "-n", help="Negatives wanted.", rich_help_panel=_CHOOSE)] = 8,
    skip: Annotated[int, typer.Option(help="Best ranks to leave out.", rich_help_panel=_CHOOSE)] = 0,
    window: Annotated[int, typer.Option(help="Ranks to look at after those.", rich_help_panel=_CHOOSE)] = 100,
    max_relative: Annotated[
        float,
        typer.Option(
            help="Drop what scores above this share of the positive's score; 1 drops what the model puts before the "
            "positive, 100 as good as nothing.",
            rich_help_panel=_CHOOSE,
        ),
    ] = 0.95,
    margin: Annotated[
        float | None,
        typer.Option(help="Drop what scores above the positive's score less this.", rich_help_panel=_CHOOSE),
    ] = None,
    max_score: Annotated[
        float | None, typer.Option(help="Drop what scores above this.", rich_help_panel=_CHOOSE)
    ] = None,
    pick: Annotated[
        Literal["top", "random"],
        typer.Option(help="Of what is left, the best or a random choice.", rich_help_panel=_CHOOSE),
    ] = "top",
    seed: Annotated[int, typer.Option(help="Of the random choice.", min=0, rich_help_panel=_CHOOSE)] = 0,
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
