"""`mllm-embed check`: open a model, start it, and prove that its vectors can be trusted."""

from __future__ import annotations

from typing import Annotated

import typer

from mllm_embed.backends import BackendName
from mllm_embed.model_dir import BUILT_IN


def check(
    model: Annotated[str, typer.Argument(help="A model directory, a hub name, or the built-in model.")] = BUILT_IN,
    *,
    backend: Annotated[
        BackendName, typer.Option(help="Engine to check; auto checks every one that is installed, and compares them.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16 or 4bit.")] = "float32",
) -> None:
    """Open a model, start it, and prove that its vectors can be trusted; exit code 1 if a check fails.

    It checks that text which names control tokens stays text, that a batch gives the vectors of its items one by one,
    that instruction, order and adapter count, that cut vectors are unit prefixes, and that transformers and vLLM agree.

    Examples:

      mllm-embed check

      mllm-embed check runs/my-model --backend transformers
    """
    from rich.console import Console

    from mllm_embed.commands import probes
    from mllm_embed.commands.tables import recipe_table, table
    from mllm_embed.errors import InvalidInput
    from mllm_embed.model_dir import open_model_dir

    if precision not in probes.BATCH_TOLERANCE:
        raise InvalidInput(f"precision must be one of {', '.join(probes.BATCH_TOLERANCE)}, but is {precision!r}")
    console = Console()
    model_dir = open_model_dir(model)
    console.print(recipe_table(model_dir))
    with console.status("") as status:
        results = list(probes.run(model_dir, backend, precision, status.update))
    marks = {True: "ok", False: "FAILED", None: "-"}
    console.print(table("Checks", ("check", "", "measured"), [(r.name, marks[r.passed], r.detail) for r in results]))
    if any(result.passed is False for result in results):
        raise typer.Exit(1)
