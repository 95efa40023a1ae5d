"""`docs/models.md` is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllm_embed.commands.models_page import models_page
from mllm_embed.families import FAMILIES
from mllm_embed.published import PUBLISHED

pytestmark = pytest.mark.fast

PAGE = Path(__file__).parents[3] / "docs" / "models.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == models_page(), "run `make docs`"


def test_every_family_and_embedder_is_on_it_with_all_its_cells() -> None:
    lines = models_page().splitlines()
    for name in FAMILIES:
        rows = [line for line in lines if line.startswith(f"| `{name}` ")]
        assert len(rows) == 3, name
    for entry in PUBLISHED.values():
        (row,) = [line for line in lines if line.startswith(f"| `{entry.name}` ")]
        assert entry.source in row
        assert (entry.refused or entry.verified or entry.state) in row
    assert not [line for line in lines if line.startswith("|") and "|  |" in line], "an empty cell"
