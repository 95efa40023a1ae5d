"""Writes docs/losses.md and docs/recipes.md from the code's own words: docstrings of losses, settings of a recipe.

python -m mllm_embed_training.reference losses|recipes
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from itertools import pairwise
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from mllm_embed_training import losses
from mllm_embed_training.config import TrainConfig
from mllm_embed_training.objective import LossSection, Term

_RECIPES = """# Recipes

Written by `make docs` from [the recipe's checked form](../training/mllm_embed_training/config.py). A recipe is a YAML
file with these keys; unknown ones are refused, and `--set section.key=value` overrides any of them. Ready ones are in
[training/configs](../training/configs); [training-data.md](training-data.md) says how your own rows come in,
[losses.md](losses.md) what stands under `loss`, and [training-runs.md](training-runs.md) what a run leaves and says.

"""
_HEAD = """# Losses

Written by `make docs` from [the losses](../training/mllm_embed_training/losses) and
[the settings of a recipe](../training/mllm_embed_training/objective.py). Every loss is a pure function of tensors; its
tests hold a value computed by hand, the loss that it reduces to, and its gradient against finite differences.

"""


def recipes() -> str:
    """Return the page of a recipe's keys."""
    lines = ["| key | default | what it does |", "| --- | --- | --- |", *_keys(TrainConfig, "")]
    return _RECIPES + "\n".join([*lines, ""])


def _keys(section: type[BaseModel], prefix: str) -> list[str]:
    texts = _field_texts(section)
    lines = []
    for name, field in section.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = _section(field.annotation)
        if inner is None or inner is LossSection:
            needed = "needed" if field.is_required() else _default(field.get_default(call_default_factory=True))
            lines.append(f"| `{key}` | {'-' if inner else needed} | {texts.get(name) or _summary(inner)} |")
        else:
            place = "NAME." if get_origin(field.annotation) is dict else ""
            lines += [f"| `{key}` | | {texts.get(name) or _summary(inner)} |", *_keys(inner, f"{key}.{place}")]
    return lines


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, alone, optionally or by name; None for a plain value."""
    kinds = [kind for kind in get_args(annotation) or [annotation] if kind is not NoneType]
    held = kinds[-1] if get_origin(annotation) is dict or len(kinds) == 1 else None
    return held if inspect.isclass(held) and issubclass(held, BaseModel) else None


def reference() -> str:
    """Return the page of the losses."""
    rows = [f"| `{name}` | {_summary(function)} | {_source(function)} |" for name, function in _functions().items()]
    functions = ["| function | what it does | source |", "| --- | --- | --- |", *rows]
    return "\n".join([_HEAD + "## Functions\n", *functions, "\n## In a recipe, under `loss`\n", *_settings(), ""])


def _functions() -> dict[str, Any]:
    return {name: getattr(losses, name) for name in losses.__all__}


def _summary(function: Any) -> str:
    return str(inspect.getdoc(function)).partition("\n")[0].replace("|", "\\|")


def _source(function: Any) -> str:
    found = re.search(r"Source: (.*?)(?:\n\n|\Z)", str(inspect.getdoc(function)), re.DOTALL)
    return " ".join(found[1].split()) if found else "-"


def _settings() -> list[str]:
    lines = ["| key | setting | default | what it does |", "| --- | --- | --- | --- |"]
    for name, field in LossSection.model_fields.items():
        section: Any = next(kind for kind in (*get_args(field.annotation), field.annotation) if inspect.isclass(kind))
        texts = {**(_field_texts(Term) if issubclass(section, Term) else {}), **_field_texts(section)}
        lines.append(f"| `{name}` | | | {_summary(section)} |")
        for setting, kind in section.model_fields.items():
            lines.append(f"| | `{setting}` | {_default(kind.default)} | {texts[setting]} |")
    return lines


def _default(value: Any) -> str:
    return "-" if value in (None, ()) else f"{value}".lower() if isinstance(value, bool) else f"{value}"


def _field_texts(section: type[Any]) -> dict[str, str]:
    """Read the strings that stand under a section's fields."""
    definition: Any = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    texts: dict[str, str] = {}
    for field, text in pairwise(definition.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            texts[field.target.id] = " ".join(str(text.value.value).split())
    return texts


if __name__ == "__main__":
    sys.stdout.write({"losses": reference, "recipes": recipes}[sys.argv[1]]())
