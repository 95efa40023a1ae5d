"""The arrows of import, what may be loaded when, and the size budgets: `docs/architecture.md` as a test."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "mllm_embed": ROOT / "mllm_embed",
    "mllm_embed_training": ROOT / "training" / "mllm_embed_training",
    "mllm_embed_serving": ROOT / "serving" / "mllm_embed_serving",
    "mllm_embed_demo": ROOT / "demo" / "mllm_embed_demo",
}
LAYERS = (
    {"types", "errors"},
    {
        *("tasks", "families", "fetch", "sources", "media", "regions", "video", "documents", "audio"),
        *("vectors", "toy_shapes", "toy_people", "toy_poses"),
    },
    {"weight_files", "recipe", "published", "model_dir", "adapters"},
    {"prompts", "lexical", "scoring"},
    {"modeling"},
    {"backends"},
    {"preparation", "windows"},
    {"embedder", "long_inputs"},
    {"retrieval", "evaluation"},
    {"commands", "corpus", "cli", "__main__"},
)
"""The library from the bottom up; a part may import its own layer and the layers below."""
BACK_ARROWS = {
    ("mllm_embed.backends.fake", "mllm_embed.embedder"): "fake_embedder() hands a ready-made embedder to tests",
}
HEAVY = {
    *("torch", "torchvision", "transformers", "vllm", "peft", "accelerate", "bitsandbytes", "flash_attn"),
    *("gradio", "fastapi", "uvicorn", "matplotlib", "sklearn", "skimage"),
}
MAY_BE_HEAVY = ("mllm_embed.modeling", "mllm_embed.backends.transformers", "mllm_embed.backends.vllm")
KNOWS_VLLM = {"mllm_embed.backends.vllm"}
MAX_FILE, MAX_MEDIAN, MAX_FUNCTION, MAX_PROTOCOL, MAX_TRAINER = 400, 150, 50, 60, 200


@dataclass(frozen=True)
class Source:
    """One parsed source file."""

    module: str
    path: Path
    lines: int
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Import:
    """One imported module, and whether importing the file is enough to load it."""

    source: Source
    target: str
    line: int
    at_top: bool

    def __str__(self) -> str:
        return f"{self.source.path.relative_to(ROOT)}:{self.line} imports {self.target}"


@cache
def sources() -> tuple[Source, ...]:
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            module = ".".join([package, *(part for part in parts if part != "__init__")])
            text = path.read_text(encoding="utf-8")
            found.append(Source(module, path, len(text.splitlines()), ast.parse(text)))
    return tuple(found)


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for source in sources() for found in _walk(source, source.tree, at_top=True))


def _walk(source: Source, node: ast.AST, *, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(source, alias.name, child.lineno, at_top)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(source, target, child.lineno, at_top) for target in _targets(source, child))
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            yield from (inner for part in child.body for inner in _walk(source, _wrap(part), at_top=False))
            yield from (inner for part in child.orelse for inner in _walk(source, _wrap(part), at_top=at_top))
        else:
            inside = at_top and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _walk(source, child, at_top=inside)


def _wrap(statement: ast.stmt) -> ast.Module:
    return ast.Module([statement], [])


def _is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in ast.unparse(test)


def _targets(source: Source, node: ast.ImportFrom) -> list[str]:
    """Return what `from x import y` names: `x.y` where that is one of our modules, else `x`."""
    base = node.module or ""
    if node.level:
        parents = source.module.split(".")
        keep = len(parents) - node.level + (source.path.name == "__init__.py")
        base = ".".join([*parents[:keep], *([node.module] if node.module else [])])
    modules = {known.module for known in sources()}
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names]


def _part(module: str) -> str:
    """Return the part of the library that a module belongs to."""
    return module.split(".")[1]


def _layer(module: str) -> int:
    for height, layer in enumerate(LAYERS):
        if _part(module) in layer:
            return height
    raise AssertionError(f"{module} has no place yet: write it into LAYERS, and say why in docs/architecture.md")


def _say(offenders: Iterator[Import] | list[Import]) -> str:
    return "\n".join(map(str, offenders))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_sources_are_found(package: str) -> None:
    found = [source for source in sources() if source.package == package]
    assert len(found) >= 4
    assert any(item.source.package == package for item in imports())


def test_packages_import_the_library_and_never_each_other() -> None:
    wrong = [
        item
        for item in imports()
        if (target := item.target.partition(".")[0]) in PACKAGES and target not in {item.source.package, "mllm_embed"}
    ]
    assert not wrong, _say(wrong)


def test_nothing_imports_the_tests_or_the_folders() -> None:
    wrong = [item for item in imports() if item.target.partition(".")[0] in {"tests", "training", "serving", "demo"}]
    assert not wrong, _say(wrong)


def test_the_library_is_layered() -> None:
    inside = [
        item
        for item in imports()
        if item.source.module.startswith("mllm_embed.") and item.target.startswith("mllm_embed.")
    ]
    assert len(inside) > 30
    upwards = [item for item in inside if _layer(item.target) > _layer(item.source.module)]
    unknown = [item for item in upwards if (item.source.module, item.target) not in BACK_ARROWS]
    assert not unknown, _say(unknown)
    assert {(item.source.module, item.target) for item in upwards} == set(BACK_ARROWS), "an exception is not needed"


def test_every_module_of_the_library_has_a_layer() -> None:
    for source in sources():
        if source.module.startswith("mllm_embed."):
            _layer(source.module)


def test_the_library_loads_nothing_heavy() -> None:
    wrong = [
        item
        for item in imports()
        if item.source.package == "mllm_embed"
        and item.at_top
        and item.target.partition(".")[0] in HEAVY
        and not item.source.module.startswith(MAY_BE_HEAVY)
    ]
    assert not wrong, _say(wrong)


def test_nothing_light_imports_a_heavy_module_at_the_top() -> None:
    wrong = [
        item
        for item in imports()
        if item.source.package == "mllm_embed"
        and item.at_top
        and item.target.startswith(MAY_BE_HEAVY)
        and not item.source.module.startswith(MAY_BE_HEAVY)
    ]
    assert not wrong, _say(wrong)


def test_one_file_knows_vllm() -> None:
    wrong = [
        item for item in imports() if item.target.partition(".")[0] == "vllm" and item.source.module not in KNOWS_VLLM
    ]
    assert not wrong, _say(wrong)


def test_flash_attn_is_never_imported_at_module_level() -> None:
    wrong = [item for item in imports() if item.at_top and item.target.startswith("flash_attn")]
    assert not wrong, _say(wrong)


@pytest.mark.parametrize("module", ["mllm_embed", "mllm_embed.cli", "mllm_embed.backends.fake"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    extra = {"httpx"} if module == "mllm_embed" else set()
    code = (
        f"import sys, {module}\n"
        f"loaded = sorted({HEAVY | extra!r} & set(sys.modules))\n"
        "sys.exit(', '.join(loaded) if loaded else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_files_and_functions_keep_their_budgets() -> None:
    sizes = {str(source.path.relative_to(ROOT)): source.lines for source in sources()}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE} == {}
    assert median(sizes.values()) <= MAX_MEDIAN
    long = {
        f"{source.path.relative_to(ROOT)}:{node.lineno} {node.name}": length
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (length := _body(node)) > MAX_FUNCTION
    }
    assert long == {}


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without signature and docstring: a command declares its options there."""
    statements = node.body[1:] if ast.get_docstring(node) else node.body
    return (node.end_lineno or 0) - statements[0].lineno + 1 if statements else 0


@pytest.mark.parametrize(
    ("module", "budget"),
    [("mllm_embed.backends.base", MAX_PROTOCOL), ("mllm_embed_training.trainer", MAX_TRAINER)],
)
def test_the_central_files_stay_short(module: str, budget: int) -> None:
    (source,) = [source for source in sources() if source.module == module]
    assert source.lines <= budget
