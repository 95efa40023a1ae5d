"""`mllm-embed models`: what can be served, and what a model directory says about itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer


def models(
    model: Annotated[
        str | None, typer.Argument(help="A model directory or hub name to describe; without it, list what there is.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show the built-in model, the model families and the tasks, or what a model directory says about itself.

    Examples:

      mllm-embed models

      mllm-embed models runs/my-model

      mllm-embed models mllm-embed-mini --json
    """
    if model is None:
        _show_all(as_json=as_json)
    else:
        _show_one(model, as_json=as_json)


def _show_one(name: str, *, as_json: bool) -> None:
    from rich.console import Console

    from mllm_embed.commands.tables import recipe_table
    from mllm_embed.model_dir import open_model_dir

    found = open_model_dir(name)
    if as_json:
        facts = {"path": str(found.path), "fingerprint": found.fingerprint, **asdict(found.recipe)}
        typer.echo(json.dumps(facts, indent=2))
        return
    console = Console()
    console.print(recipe_table(found))
    console.print(f"serve it: mllm-embed serve {name}", highlight=False, soft_wrap=True)


def _show_all(*, as_json: bool) -> None:
    from rich.console import Console

    from mllm_embed.commands.tables import table
    from mllm_embed.families import FAMILIES
    from mllm_embed.model_dir import BUILT_IN, open_model_dir
    from mllm_embed.published import PUBLISHED
    from mllm_embed.tasks import TASKS

    built_in = open_model_dir(BUILT_IN)
    recipe = built_in.recipe
    if as_json:
        families = {name: sorted(family.templates) for name, family in FAMILIES.items()}
        tasks = {name: {"query": task.query, "target": task.target} for name, task in TASKS.items()}
        published = {name: {**asdict(entry), "state": entry.state} for name, entry in PUBLISHED.items()}
        facts = {"built_in": {"path": str(built_in.path), **asdict(recipe)}, "families": families}
        typer.echo(json.dumps({**facts, "published": published, "tasks": tasks}, indent=2))
        return
    console = Console()
    widths = ", ".join(map(str, sorted({*recipe.matryoshka_dimensions, recipe.dimensions})))
    ships = [(recipe.name, recipe.family, widths, str(recipe.max_tokens))]
    console.print(table("Built in", ("model", "family", "dimensions", "tokens"), ships))
    known = [(name, ", ".join(family.templates)) for name, family in FAMILIES.items()]
    console.print(table("Families, by model_type in config.json", ("family", "templates"), known))
    others = [(name, entry.family or "-", str(entry.dimensions), entry.state) for name, entry in PUBLISHED.items()]
    console.print(table("Published embedders, by hub name", ("model", "family", "dimensions", ""), others))
    tasks_shown = [(task.name, task.query, task.target) for task in TASKS.values()]
    console.print(table("Tasks and their instructions", ("task", "query", "target"), tasks_shown))
