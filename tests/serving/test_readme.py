"""serving/README.md names what there is."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from mllm_embed.backends.fake import fake_embedder
from mllm_embed_serving.app import create_app
from mllm_embed_serving.cli import serve
from mllm_embed_serving.errors import ANSWERS, ClientGone, RequestError

pytestmark = pytest.mark.fast

README = (Path(__file__).parents[2] / "serving" / "README.md").read_text(encoding="utf-8")


def test_every_route() -> None:
    with fake_embedder() as embedder:
        paths = create_app(embedder).openapi()["paths"]
    assert len(paths) == 18
    assert [path for path in paths if f" {path}`" not in README] == []


def test_every_error_code() -> None:
    internal = {ANSWERS[ClientGone].code, ANSWERS[RequestError].code}
    codes = {answer.code for answer in ANSWERS.values()} - internal
    assert [code for code in sorted(codes) if f"`{code}`" not in README] == []


def test_every_limit() -> None:
    options = [f"--{name.replace('_', '-')}" for name in inspect.signature(serve).parameters if name.startswith("max_")]
    assert len(options) > 5
    assert [option for option in options if f"`{option}`" not in README and option != "--max-tokens"] == []
