"""`mllm-embed`: one command whose subcommands are found by name and imported when they are used.

The library brings `embed`, `check` and `models`; whatever else is installed adds its own through the entry-point group
`mllm_embed.commands`. Listing the commands imports none of them: the line shown for each is read from its source.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from mllm_embed import __version__
from mllm_embed.errors import BackendUnavailable, MllmEmbedError

ENTRY_POINTS = "mllm_embed.commands"
FAILURE = 2
"""Exit code of an error that has a one-line explanation."""

_OWN = {name: f"mllm_embed.commands.{name}:{name}" for name in ("embed", "check", "models")}
_TRAINING = ("train", "ask", "mine", "teach", "export", "soup")
_ORDER = ("serve", "bench", "demo", "embed", "models", "check", *_TRAINING, "eval")
_EXTRAS = {"serve": "serve", "bench": "serve", "demo": "demo", "eval": "eval"} | dict.fromkeys(_TRAINING, "train")

app = typer.Typer(
    name="mllm-embed",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class LazyCommand(TyperCommand):
    """A subcommand that is imported when it runs or shows its own help.

    Args:
        name: what the user types.
        target: `module:function`; the function is typer-annotated, or it is a `typer.Typer`.
    """

    def __init__(self, name: str, target: str) -> None:
        super().__init__(name, help=_first_line(target))
        self.target = target

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments with the real command, which then is the one that runs."""
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> TyperCommand | TyperGroup:
        """Import the real command.

        Raises:
            BackendUnavailable: it needs packages that are not installed.
        """
        module, _, attribute = self.target.partition(":")
        found = _import_command(str(self.name), module, attribute)
        if isinstance(found, typer.Typer):
            command: TyperCommand | TyperGroup = typer.main.get_group(found)
        else:
            single = typer.Typer(
                add_completion=False, rich_markup_mode="markdown", context_settings=app.info.context_settings
            )
            single.command(self.name, help=_help(found))(found)
            command = typer.main.get_command(single)  # type: ignore[assignment]  # declared as their common base
        command.name = self.name
        return command


def command_targets() -> dict[str, str]:
    """Return `module:function` by command name, in the order of the help."""
    targets = _OWN | {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    known = [name for name in _ORDER if name in targets]
    return {name: targets[name] for name in [*known, *sorted(set(targets) - set(known))]}


def build() -> TyperGroup:
    """Return the whole command."""
    group = typer.main.get_group(app)
    for name, target in command_targets().items():
        group.add_command(LazyCommand(name, target), name)
    return group


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors raised on purpose become one line on stderr and exit code 2."""
    try:
        build()(arguments, prog_name="mllm-embed")
    except MllmEmbedError as error:
        _fail(error)
    except ModuleNotFoundError as error:  # a command imports heavy packages when it runs
        given = sys.argv[1:] if arguments is None else arguments
        command = next((argument for argument in given if not argument.startswith("-")), "mllm-embed")
        _fail(_explain(command, error))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Universal multimodal embeddings: one vector space for text, images and any mix of them.

    Start with `mllm-embed serve --demo` (API and playground) or `mllm-embed embed FOLDER --output vectors.parquet`.

    `mllm-embed COMMAND --help` explains a command and shows examples.
    """


def _help(function: Any) -> str:
    """Return a command's docstring as Markdown, in which a blank line must follow a heading."""
    return re.sub(r"Examples:\n+", "Examples:\n\n", inspect.getdoc(function) or "")


def _import_command(name: str, module: str, attribute: str) -> Any:
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise _explain(name, error) from error


def _explain(command: str, error: ModuleNotFoundError) -> BackendUnavailable:
    """Return the error that names the extra which brings the missing package; a missing module of ours is a bug."""
    package = (error.name or "").split(".")[0]
    if not package or package.startswith("mllm_embed"):
        raise error
    extra = _EXTRAS.get(command, "transformers")
    return BackendUnavailable(
        f"{command} needs the package {package!r}, which is not installed; the extra {extra!r} brings it: "
        f"pip install 'mllm-embed[{extra}]'"
    )


def _fail(error: MllmEmbedError) -> NoReturn:
    print(f"mllm-embed: {error}", file=sys.stderr)
    sys.exit(FAILURE)


def _first_line(target: str) -> str:
    """Read the first line of a command's docstring from its source, without importing its module."""
    module, _, attribute = target.partition(":")
    spec = importlib.util.find_spec(module)  # imports the package above the module: a docstring in ours
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


if __name__ == "__main__":
    main()
