"""The examples of `docs/outputs.md`, run from top to bottom on the fake engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from mllm_embed.embedder import Embedder

pytestmark = pytest.mark.fast

PAGE = Path(__file__).parents[2] / "docs" / "outputs.md"


def test_its_examples_run(
    fake: Embedder,
    draw: Callable[..., PIL.Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw(1).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Embedder, "load", lambda _name: fake)
    names: dict[str, Any] = {}
    examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)  # noqa: S102  # our own page
    shapes, words, scores, score, *shares = capsys.readouterr().out.splitlines()
    visual = fake.model_dir.pixels.visual_tokens(*draw(1).size)
    assert shapes == f"(64,) (12, 64) ({visual}, 64)"  # the fake tokenizer reads bytes
    assert words.startswith("[('")
    assert float(scores.strip("[]").split()[-1]) == pytest.approx(12, abs=1e-4)  # the query against itself
    assert float(score) > 0
    assert len(shares) == 3
