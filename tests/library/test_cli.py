"""The command line itself: what it lists, what it imports, how it fails."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mllm_embed import __version__, cli

pytestmark = pytest.mark.fast


def test_listing_the_commands_imports_none_of_them() -> None:
    script = (
        "from mllm_embed import cli\ntry:\n    cli.main(['--help'])\nfinally:\n    import sys\n    print(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "Embed files, folders or lines of text" in shown
    loaded = set(shown.splitlines()[-1].split())
    targets = {target.partition(":")[0] for target in cli.command_targets().values()}
    assert len(targets) >= 3
    assert "mllm_embed.cli" in loaded
    assert not loaded & (targets | {"torch", "transformers", "vllm", "fastapi", "gradio", "pyarrow"})


def test_every_command_has_a_line_in_the_list() -> None:
    group = cli.build()
    assert {"embed", "check", "models", "serve", "demo", "train", "export", "eval"} <= set(group.commands)
    for name, command in group.commands.items():
        assert command.help, f"{name} has no docstring"


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["embd"])
    assert stop.value.code == 2
    assert "embed" in capsys.readouterr().err


PLUGIN = '''
def fine(name: str) -> None:
    """Say hello."""
    print(f"hello {name}")

def late(name: str) -> None:
    """Need a package when it runs."""
    import a_package_that_is_not_installed

def buggy(name: str) -> None:
    """Import a module of ours that does not exist."""
    import mllm_embed.no_such_module
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install commands by entry point: sound ones, and ones whose packages are missing."""
    (tmp_path / "house_test_plugin.py").write_text(PLUGIN)
    (tmp_path / "house_test_broken.py").write_text(f"import a_package_that_is_not_installed\n{PLUGIN}")
    monkeypatch.syspath_prepend(tmp_path)
    values = {
        "fine": "house_test_plugin:fine",
        "serve": "house_test_broken:fine",
        "train": "house_test_plugin:late",
        "buggy": "house_test_plugin:buggy",
    }
    points = [EntryPoint(name, value, cli.ENTRY_POINTS) for name, value in values.items()]
    monkeypatch.setattr(cli, "entry_points", lambda group: points if group == cli.ENTRY_POINTS else [])


@pytest.mark.usefixtures("plugin")
def test_a_command_found_by_entry_point_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["fine", "world"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == "hello world\n"


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("name", ["serve", "train"])
def test_a_missing_package_is_one_sentence_that_names_the_extra(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "world"])
    assert stop.value.code == cli.FAILURE
    (line,) = capsys.readouterr().err.splitlines()
    assert "'a_package_that_is_not_installed'" in line
    assert f"mllm-embed[{name}]" in line


@pytest.mark.usefixtures("plugin")
def test_a_missing_module_of_ours_is_a_bug_and_shows_itself() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        cli.main(["buggy", "world"])
