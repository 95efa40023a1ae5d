"""The examples of `docs/inputs.md`, run from top to bottom on the fake engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
import pytest
from starlette.testclient import TestClient

from mllm_embed.embedder import Embedder
from mllm_embed_serving.app import create_app
from mllm_embed_serving.settings import ServerSettings

from .test_documents import pdf
from .test_video import film

pytestmark = pytest.mark.fast

PAGE = Path(__file__).parents[2] / "docs" / "inputs.md"


def test_its_examples_run(
    fake: Embedder,
    draw: Callable[..., PIL.Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw(1).save(tmp_path / "photo.png")
    mask = PIL.Image.new("L", (96, 80))
    mask.paste(255, (10, 10, 60, 40))
    mask.save(tmp_path / "mask.png")
    (tmp_path / "film.mp4").write_bytes(film(20))
    (tmp_path / "report.pdf").write_bytes(pdf(0, 200))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Embedder, "load", lambda _name: fake)
    api = TestClient(create_app(fake, ServerSettings()))
    monkeypatch.setattr(httpx, "post", lambda url, *, json, timeout: api.post(url, json=json))
    names: dict[str, Any] = {}
    examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(examples) == 9
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)  # noqa: S102  # our own page
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "(4, 64)"
    assert shown[2] == "(4, 64)"
    assert shown[3].startswith("((0.0, ")
    assert shown[4] == "2 (2, 64) (1, 64) (1, 64)"
    assert shown[5] == "(1, 64)"
    assert shown[6] == "(64,) 3 3"
    assert shown[7] == "2 64 64"
    assert [line.partition(":")[0] for line in shown[8:]] == ["input[1]"] * 7
