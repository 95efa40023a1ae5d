"""Every command and option as Markdown, from the commands themselves: python -m mllm_embed.commands.reference."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

from mllm_embed.cli import LazyCommand, build

_HEAD = """# The command line

Written by `make docs` from the commands' own help; a test holds that it is up to date.
"""


def reference() -> str:
    """Return the page."""
    parts = [_HEAD]
    for name, command in build().commands.items():
        real = command.load() if isinstance(command, LazyCommand) else command
        parts += _section(f"mllm-embed {name}", real, "##")
    return "\n".join(parts).rstrip() + "\n"


def _section(title: str, command: Any, heading: str) -> Iterator[str]:
    help_ = re.sub(r"(?m)^ +(?=\S)", "    ", inspect.cleandoc(command.help or ""))  # examples are indented: code
    yield f"{heading} {title}\n\n{help_}\n"
    if arguments := [param for param in command.params if param.param_type_name == "argument"]:
        yield _table("argument", arguments)
    if options := [param for param in command.params if param.param_type_name == "option" and not _is_built_in(param)]:
        yield _table("option", options)
    for name, nested in getattr(command, "commands", {}).items():
        yield from _section(f"{title} {name}", nested, heading + "#")


def _is_built_in(param: Any) -> bool:
    return param.name in ("help", "install_completion", "show_completion")


def _table(kind: str, params: list[Any]) -> str:
    rows = [f"| {kind} | default | meaning |", "|---|---|---|"]
    rows += [f"| {_names(param)} | {_default(param)} | {_cell(param.help or '')} |" for param in params]
    return "\n".join(rows) + "\n"


def _names(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"`{param.name.upper()}{'...' if param.nargs == -1 else ''}`"
    return ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])


def _default(param: Any) -> str:
    if param.required:
        return "required"
    default = param.default
    if default in (None, ()) or callable(default) or "UNSET" in repr(default):
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"`{default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
