"""Qwen3-VL: the tiny model is one that training makes from nothing."""

from __future__ import annotations

from pathlib import Path

from tests.tiny_models import from_scratch


def make_tiny(path: Path) -> None:
    from_scratch("qwen3_vl", path)
