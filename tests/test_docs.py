"""Documentation that cannot rot: paths exist, snippets run, the command reference and the changelog are up to date."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
import uvicorn

import mllm_embed
from mllm_embed.backends.fake import fake_embedder
from mllm_embed.cli import LazyCommand, build
from mllm_embed.commands.reference import reference
from mllm_embed.embedder import Embedder
from mllm_embed.evaluation.report import read_report
from mllm_embed.evaluation.scores_page import scores_page
from mllm_embed.model_dir import BUILT_IN, open_model_dir
from mllm_embed_serving.app import create_app
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_training.config import load_config
from mllm_embed_training.reference import recipes as recipes_reference
from mllm_embed_training.reference import reference as losses_reference

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(page for folder in ("training", "serving", "demo", "benchmarks") for page in (ROOT / folder).glob("*.md")),
    *sorted((ROOT / "mllm_embed" / "models").rglob("*.md")),
]
FOLDERS = "mllm_embed|training|serving|demo|install|tests|docs|benchmarks|\\.ci"
MADE_BY_RUNS = ("training/LOG.md",)
"""Paths that a run makes."""
LOCAL_API = "http://127.0.0.1:8000"


def test_the_pages_are_found() -> None:
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/cli.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_paths_exist(page: Path) -> None:
    for path in re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]*\w)", page.read_text()):
        assert (ROOT / path).exists() or path in MADE_BY_RUNS, f"{page.name} names {path}"


def test_the_tree_in_the_readme_is_the_tree() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    folder, named = ROOT, 0
    for line in tree.strip().splitlines():
        entry = line[:31]
        folder = ROOT if entry[0] != " " else folder
        for name in entry.split():
            assert (folder / name).exists(), f"the tree names {folder.name}/{name}"
            named += 1
        if entry[0] != " ":
            folder = ROOT / entry.split()[0]
    assert named > 20


def test_no_page_names_a_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:work|root|home/\w+)/", page.read_text()), page


def test_the_command_reference_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run `make docs`"


def test_the_losses_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "losses.md").read_text() == losses_reference(), "run `make docs`"


def test_the_recipes_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "recipes.md").read_text() == recipes_reference(), "run `make docs`"


@pytest.mark.parametrize("page", ["README.md", "mllm_embed/models/mllm-embed-mini/README.md"])
def test_quoted_scores_are_the_published_ones(page: str) -> None:
    section = (ROOT / page).read_text(encoding="utf-8").partition("\n## Scores\n")[2].partition("\n## ")[0]
    quoted = [line for line in section.splitlines() if line.startswith("|")]
    published = set((ROOT / "docs/scores.md").read_text(encoding="utf-8").splitlines())
    assert len(quoted) > 10
    assert [line for line in quoted if line not in published] == []


def test_the_page_of_scores_is_what_its_reports_make() -> None:
    page = (ROOT / "docs/scores.md").read_text(encoding="utf-8")
    command = re.search(r"`(mllm-embed eval report (.+) --out scores\.md)`", page)
    assert command is not None
    reports = [read_report(ROOT / "docs/reports" / name) for name in command[2].split()]
    assert page == scores_page(reports, command=command[1])


def test_the_scores_are_those_of_the_weights_that_are_shipped() -> None:
    assert read_report(ROOT / "docs/reports/after.json")["model"]["fingerprint"] == open_model_dir(BUILT_IN).fingerprint


def test_every_command_shows_examples() -> None:
    for name, command in build().commands.items():
        assert isinstance(command, LazyCommand)
        help_ = command.load().help or ""
        assert name == "eval" or f"mllm-embed {name}" in help_, f"the help of {name} shows no example"


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == mllm_embed.__version__


RECIPES = sorted((ROOT / "training" / "configs").glob("**/*.yaml"))


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 2


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_begins_with_its_command_and_loads(recipe: Path) -> None:
    assert recipe.read_text().splitlines()[0] == f"# mllm-embed train {recipe.relative_to(ROOT)}"
    load_config(recipe, [])


def snippets(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def stand_in() -> Iterator[Embedder]:
    """The built-in model's name and width on the fake engine."""
    genuine = fake_embedder(dimensions=320, matryoshka_dimensions=(64, 128))
    model_dir = replace(genuine.model_dir, recipe=replace(genuine.model_dir.recipe, name=BUILT_IN))
    with Embedder(model_dir, genuine.backend) as embedder:
        yield embedder


@pytest.fixture
def api(stand_in: Embedder) -> Iterator[str]:
    """A server of it, on a free port."""
    config = uvicorn.Config(create_app(stand_in, ServerSettings()), port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("snippet", snippets("README.md"))
def test_snippets_of_the_readme_run(
    snippet: str,
    api: str,
    stand_in: Embedder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    draw: Callable[..., PIL.Image.Image],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, name in enumerate(("circle.png", "square.png")):
        draw(number).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Embedder, "load", lambda name: stand_in)
    exec(compile(snippet.replace(LOCAL_API, api), "README.md", "exec"), {})  # noqa: S102  # our own page
    assert capsys.readouterr().out.strip(), "a snippet shows something"


def test_there_are_snippets() -> None:
    assert len(snippets("README.md")) >= 3
    assert any(LOCAL_API in snippet for snippet in snippets("README.md"))
