"""Everybody whose work was trained on is named, once."""

from pathlib import Path
from typing import Any

import pytest

from mllm_embed_training.attribution import attribution
from mllm_embed_training.sources import Package

pytestmark = pytest.mark.fast


class Made(Package):
    """A package whose rows are given."""

    def emoji(self) -> list[dict[str, Any]]:
        return [{"license": "MIT", "style": "flat"}, {"license": "MIT", "style": "flat"}]

    def icons(self) -> list[dict[str, Any]]:
        return [
            {"license": "CC-BY-3.0", "icon_set": "game-icons", "author": "lorc"},
            {"license": "MIT", "icon_set": "phosphor", "author": "somebody under MIT"},
        ]

    def figures(self) -> list[dict[str, Any]]:
        return [{"license": "CC-BY-4.0", "book": "physics", "credit": "(credit:  a\n person)"}]

    def stories(self) -> list[dict[str, Any]]:
        return [{"license": "CC-BY", "illustrator": "An Illustrator"}]

    def photos(self) -> list[dict[str, Any]]:
        return [{"license": "MIT", "set": "grocery"}]


def test_the_page_names_each_maker_under_its_licence() -> None:
    page = attribution(Made(Path()))
    for line in (
        "- MIT: flat\n",
        "- CC-BY-3.0: game-icons\n",
        "- CC-BY-3.0: lorc\n",
        "- CC-BY-4.0: physics\n",
        "- CC-BY: An Illustrator\n",
        "- MIT: grocery\n",
        "- (credit: a person)\n",
    ):
        assert page.count(line) == 1, line
    assert "somebody under MIT" not in page
