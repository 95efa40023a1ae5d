"""The options of `mllm-embed mine`, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mllm_embed.backends import BackendName
from mllm_embed.model_dir import BUILT_IN
from mllm_embed.types import Truncate

_READ, _COMPARE, _CHOOSE = "What is read", "How it is compared", "Which candidates become negatives"

Dataset = Annotated[
    Path,
    typer.Argument(
        help="Rows with `query` and `positive` (or `positives`), and optionally `negatives`, `task`, `id`: .jsonl, "
        ".parquet, .csv, .tar; a pattern names several files."
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier output.")]
Corpus = Annotated[
    Path | None,
    typer.Option(
        help="Candidates: rows with `text`, `image` or both; default: the data set's positives.",
        rich_help_panel=_READ,
    ),
]
AddPositives = Annotated[
    bool,
    typer.Option("--add-positives", help="Add the data set's positives to the corpus.", rich_help_panel=_READ),
]
Schema = Annotated[
    Literal["pairs", "mmeb", "webdataset"],
    typer.Option(help="Field names of the rows, as in a recipe's data.files.", rich_help_panel=_READ),
]
Images = Annotated[
    Path | None,
    typer.Option(help="Folder of relative picture paths; default: each file's own.", rich_help_panel=_READ),
]
OwnNegatives = Annotated[
    Literal["keep", "drop"],
    typer.Option(help="Negatives that rows have already: keep them first, or mine anew.", rich_help_panel=_READ),
]
SkipCorrupt = Annotated[
    bool,
    typer.Option("--skip-corrupt", help="Leave out what cannot be used, and list it.", rich_help_panel=_READ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help=f"A model directory, a hub name, or the built-in model; default: {BUILT_IN}.", rich_help_panel=_COMPARE
    ),
]
Engine = Annotated[
    BackendName,
    typer.Option(help="Engine; auto takes vLLM where it is installed, else transformers.", rich_help_panel=_COMPARE),
]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, float16 or 4bit.", rich_help_panel=_COMPARE)]
TaskName = Annotated[
    str, typer.Option(help="Built-in task of rows that name none; see mllm-embed models.", rich_help_panel=_COMPARE)
]
QueryInstruction = Annotated[
    str | None, typer.Option(help="Your own, instead of the task's.", rich_help_panel=_COMPARE)
]
TargetInstruction = Annotated[
    str | None, typer.Option(help="Your own, instead of the task's.", rich_help_panel=_COMPARE)
]
Cut = Annotated[
    Truncate,
    typer.Option(help="Cut texts that are too long for the model, or refuse them.", rich_help_panel=_COMPARE),
]
BatchSize = Annotated[int, typer.Option(help="Items handed to the engine at once.", min=1, rich_help_panel=_COMPARE)]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder of vectors that are done; default: in your cache folder.", rich_help_panel=_COMPARE),
]
QueryVectors = Annotated[
    Path | None,
    typer.Option(
        help="Instead of a model: vectors of all queries, from mllm-embed embed (.parquet or .jsonl).",
        rich_help_panel=_COMPARE,
    ),
]
TargetVectors = Annotated[
    Path | None,
    typer.Option(help="The same of all positives, negatives and candidates.", rich_help_panel=_COMPARE),
]
PerQuery = Annotated[int, typer.Option("--per-query", "-n", help="Negatives wanted.", rich_help_panel=_CHOOSE)]
Skip = Annotated[int, typer.Option(help="Best ranks to leave out.", rich_help_panel=_CHOOSE)]
Window = Annotated[int, typer.Option(help="Ranks to look at after those.", rich_help_panel=_CHOOSE)]
MaxRelative = Annotated[
    float,
    typer.Option(
        help="Drop what scores above this share of the positive's score; 1 drops what the model puts before the "
        "positive, 100 as good as nothing.",
        rich_help_panel=_CHOOSE,
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(help="Drop what scores above the positive's score less this.", rich_help_panel=_CHOOSE),
]
MaxScore = Annotated[float | None, typer.Option(help="Drop what scores above this.", rich_help_panel=_CHOOSE)]
Pick = Annotated[
    Literal["top", "random"],
    typer.Option(help="Of what is left, the best or a random choice.", rich_help_panel=_CHOOSE),
]
Seed = Annotated[int, typer.Option(help="Of the random choice.", min=0, rich_help_panel=_CHOOSE)]
