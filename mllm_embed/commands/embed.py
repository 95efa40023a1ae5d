"""`mllm-embed embed`: files, folders and lines of text -> a file of vectors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from mllm_embed.backends import BackendName
from mllm_embed.model_dir import BUILT_IN
from mllm_embed.tasks import DEFAULT
from mllm_embed.types import MAX_WORDS, Outputs


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, videos, .pdf files (one row per page), .txt files (one text per line), .jsonl files "
            "(records with text, image or both, perhaps a region of the image), folders that hold any of these, "
            "or - for lines on standard input."
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .parquet, .npy or .jsonl.")],
    model: Annotated[str, typer.Option(help="A model directory, a hub name, or the built-in model.")] = BUILT_IN,
    backend: Annotated[
        BackendName, typer.Option(help="Engine; auto takes vLLM where it is installed, else transformers.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16 or 4bit.")] = "float32",
    task: Annotated[str, typer.Option(help="Built-in task, whose instruction is used; see mllm-embed models.")] = (
        DEFAULT
    ),
    role: Annotated[
        Literal["query", "target"], typer.Option(help="Side of the task: what one searches with, or searches in.")
    ] = "target",
    instruction: Annotated[str | None, typer.Option(help="Your own instruction, instead of the task's.")] = None,
    dimensions: Annotated[int | None, typer.Option(help="Width to cut the vectors to.", min=1)] = None,
    words: Annotated[
        int,
        typer.Option(
            help="Beside each vector, the words that the model reads in it and their weights, at most so many.",
            min=0,
            max=MAX_WORDS,
        ),
    ] = 0,
    multivector: Annotated[
        bool, typer.Option("--multivector", help="Beside each vector, one for every token, for late interaction.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Rows handed to the engine at once.", min=1)] = 64,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if a row had to be skipped.")] = False,
) -> None:
    """Embed files, folders or lines of text into a file of vectors.

    Rows keep their order. A row that cannot be embedded, such as a corrupt picture, is reported and skipped. After a
    kill, the same command goes on where it was. The output appears when it is complete. Beside a .npy file, a file
    .ids.txt names its rows.

    Examples:

      mllm-embed embed photos/ --output photos.parquet

      mllm-embed embed products.jsonl --output products.npy --dimensions 128

      cat queries.txt | mllm-embed embed - --output queries.jsonl --task text-to-image --role query

      mllm-embed embed photo.png --output read.jsonl --words 10
    """
    from mllm_embed.commands.embed_run import EmbedRun, run
    from mllm_embed.commands.rows import collect
    from mllm_embed.errors import InvalidInput
    from mllm_embed.tasks import get_task

    if output.exists() and not overwrite:
        raise InvalidInput(f"{output} exists: choose another output, or add --overwrite")
    wording = instruction if instruction is not None else get_task(task).instruction(role)
    outputs = Outputs(multivector=multivector, lexical=words)
    wanted = EmbedRun(model, backend, precision, wording, dimensions, batch_size, outputs)
    outcome = run(collect(inputs, sys.stdin), output, wanted)
    if outcome.skipped and (strict or not outcome.written):
        raise typer.Exit(1)
