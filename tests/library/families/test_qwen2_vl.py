"""Qwen2-VL: the tiny model is one that training makes from nothing."""

from __future__ import annotations

from pathlib import Path

from tests.tiny_models import from_scratch

TRANSFORMERS_4 = {"model.language_model.": "model.", "model.visual.": "visual."}
"""What modules were called up to transformers 4.51."""


def make_tiny(path: Path) -> None:
    from_scratch("qwen2_vl", path)
