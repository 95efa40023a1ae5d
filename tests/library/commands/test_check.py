"""`mllm-embed check`: passes on a sound model, fails on a faulty one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mllm_embed.backends import fake
from mllm_embed.commands import probes
from mllm_embed.model_dir import open_model_dir
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import Embedding, RenderedPrompt

pytestmark = pytest.mark.fast

Command = Callable[..., int]


def test_a_sound_model_passes(command: Command, fake_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check", fake_dir, "--backend", "fake") == 0
    shown = capsys.readouterr().out
    assert "qwen3_vl" in shown
    assert "FAILED" not in shown


def test_vectors_that_depend_on_the_batch_fail(
    command: Command, fake_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    genuine = fake.FakeBackend.embed

    async def embed(self: fake.FakeBackend, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        found = await genuine(self, prompts)
        return [Embedding(item.vector + 0.1 * len(prompts), item.tokens) for item in found]

    monkeypatch.setattr(fake.FakeBackend, "embed", embed)
    assert command("check", fake_dir, "--backend", "fake") == 1
    assert "FAILED" in capsys.readouterr().out


def test_engines_that_disagree_fail() -> None:
    first = np.eye(4, dtype=np.float32)
    assert probes.parity({"vllm": first, "transformers": first}, "float32").passed is True
    assert probes.parity({"vllm": first, "transformers": first[::-1]}, "float32").passed is False
    assert probes.parity({"vllm": first}, "float32").passed is None


def test_an_unknown_precision_is_refused(command: Command, fake_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check", fake_dir, "--backend", "fake", "--precision", "float8") == 2
    assert "float8" in capsys.readouterr().err


def test_a_foreign_directory_is_one_sentence(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("check", tmp_path) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_control_tokens_that_text_can_make_fail(fake_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_model_dir(fake_dir)
    assert probes.special_tokens(opened).passed is True
    genuine = PromptRenderer.tokenize

    def tokenize(self: PromptRenderer, text: str) -> list[int]:
        return [*genuine(self, text), *([self.image_token_id] if opened.family.image_token in text else [])]

    monkeypatch.setattr(PromptRenderer, "tokenize", tokenize)
    assert probes.special_tokens(opened).passed is False


def test_an_engine_that_cannot_serve_the_model_is_left_out_and_that_is_said(
    fake_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = replace(open_model_dir(fake_dir), recipe=replace(open_model_dir(fake_dir).recipe, pooling="mean"))
    started: list[str] = []

    def measure(_opened: object, name: str, _precision: str) -> tuple[object, list[probes.Result]]:
        started.append(name)
        return np.eye(4, dtype=np.float32), []

    monkeypatch.setattr(probes, "ENGINES", ("vllm", "fake"))
    monkeypatch.setattr(probes, "find_spec", lambda _name: object())
    monkeypatch.setattr(probes, "measure", measure)
    results = list(probes.run(opened, "auto", "float32", lambda _text: None))
    assert started == ["fake"]
    (said,) = [result for result in results if result.name == "vllm: not checked"]
    assert said.passed is None
    assert "its pooling is 'mean'" in said.detail
