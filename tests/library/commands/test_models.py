"""`mllm-embed models`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mllm_embed import model_dir
from mllm_embed.families import FAMILIES
from mllm_embed.published import PUBLISHED
from mllm_embed.tasks import TASKS

pytestmark = pytest.mark.fast

Command = Callable[..., int]


def test_a_directory_is_described(command: Command, fake_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("models", fake_dir) == 0
    assert "qwen3_vl" in capsys.readouterr().out
    assert command("models", fake_dir, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["dimensions"] == 64
    assert facts["fingerprint"] == model_dir.open_model_dir(fake_dir).fingerprint


def test_the_list_names_every_family_and_task(
    command: Command, fake_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model_dir, "BUILT_IN", str(fake_dir))
    monkeypatch.setenv("COLUMNS", "200")  # no name is broken
    assert command("models") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*FAMILIES, *PUBLISHED, *TASKS])
    assert command("models", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["families"]) == set(FAMILIES)
    assert facts["published"]["Qwen/Qwen3-VL-Embedding-2B"]["state"] == "from the card"
    assert set(facts["tasks"]) == set(TASKS)


def test_an_absent_model_is_one_sentence(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("models", tmp_path / "none") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
