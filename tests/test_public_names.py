"""What a user may import: `__all__` is sorted and exact, and everything public says what it is."""

from __future__ import annotations

import ast
import importlib
import types
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mllm_embed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parent.parent
FOLDERS = ("mllm_embed", "training/mllm_embed_training", "serving/mllm_embed_serving", "demo/mllm_embed_demo")
Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> dict[Path, ast.Module]:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def declared(tree: ast.Module) -> list[str] | None:
    """Return the module's `__all__`, if it has one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Documented]]:
    """Yield the public classes and functions of a module, and the public methods of those classes."""
    for node in body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


def order(name: str) -> tuple[int, str]:
    """Sort key: constants, classes, the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_there_is_something_to_check() -> None:
    assert len(trees()) > 30
    assert sum(declared(tree) is not None for tree in trees().values()) >= 3


def test_all_is_sorted_and_names_what_exists() -> None:
    for path, tree in trees().items():
        names = declared(tree)
        if names is None:
            continue
        assert names == sorted(names, key=order), f"{path}: __all__ is not sorted"
        assert len(names) == len(set(names)), f"{path}: __all__ names something twice"
        defined = {name for name, _ in public(tree.body) if "." not in name}
        assert defined <= set(names), f"{path}: __all__ lacks {sorted(defined - set(names))}"


def test_the_librarys_names_are_exactly_its_public_ones() -> None:
    found = {
        name
        for name, value in vars(mllm_embed).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    assert found | {"__version__"} == set(mllm_embed.__all__)


@pytest.mark.parametrize(
    "module",
    [
        *("mllm_embed.families", "mllm_embed.backends", "mllm_embed.model_dir"),
        *("mllm_embed.toy_people", "mllm_embed.toy_shapes", "mllm_embed"),
    ],
)
def test_declared_names_can_be_imported(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None


def test_everything_public_says_what_it_is() -> None:
    silent = [str(path) for path, tree in trees().items() if not ast.get_docstring(tree)]
    silent += [
        f"{path}:{node.lineno} {name}"
        for path, tree in trees().items()
        for name, node in public(tree.body)
        if not ast.get_docstring(node) and not any("overrid" in ast.unparse(d) for d in node.decorator_list)
    ]
    assert silent == []


def test_the_version_is_the_distributions() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert mllm_embed.__version__ == project["version"]
