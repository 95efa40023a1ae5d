"""Tables that commands print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from mllm_embed.model_dir import ModelDir


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table of plain text; markup in the cells stays text."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def recipe_table(model_dir: ModelDir) -> Table:
    """Return what a model directory says about itself."""
    facts = {"path": model_dir.path, "weights": model_dir.weights, **asdict(model_dir.recipe)}
    rows = [(name, "none" if value in (None, ()) else _shown(value)) for name, value in facts.items()]
    return table(model_dir.recipe.name, ("", "value"), rows)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
