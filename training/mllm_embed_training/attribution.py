"""Who made what the built-in model was trained on: writes ATTRIBUTION.md from the rows' own columns.

python -m mllm_embed_training.attribution DATA_FOLDER mllm_embed/models/mllm-embed-mini/ATTRIBUTION.md
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from mllm_embed_training.sources import Package, Row

_HEAD = """# Attribution

The weights beside this page learned from these works, none of which is shipped. Rows under a share-alike licence, and
textbook figures whose third-party credit names one, were not used; other credits are below. Changes: pictures were
scaled, and some recoloured or cropped while training.
"""


def attribution(package: Package) -> str:
    """Return the page, as Markdown."""
    parts = [
        _HEAD,
        _section("Emoji", _by_licence(package.emoji(), "style")),
        _section("Icons, sets", _by_licence(package.icons(), "icon_set")),
        _section("Icons, authors under Creative Commons", _by_licence(_creative_commons(package.icons()), "author")),
        _section("Textbook figures (OpenStax), books", _by_licence(package.figures(), "book")),
        _section("Picture books (African Storybook), illustrators", _by_licence(package.stories(), "illustrator")),
        _section("Scenes", ["CC-BY-4.0: NLVR (Suhr et al. 2017)"]),
        _section("Photos", _by_licence(package.photos(), "set")),
        _section("Charts", ["BSD-3-Clause: Vega-Lite examples, University of Washington Interactive Data Lab"]),
        _section("Names and keywords", ["Unicode License v3: Unicode CLDR", "MIT: emojibase"]),
        _section("Third-party credits in the textbooks", sorted(_distinct(package.figures(), "credit"))),
    ]
    return "\n".join(parts)


def _creative_commons(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["author"] and str(row["license"]).startswith("CC")]


def _distinct(rows: Iterable[Row], key: str) -> set[str]:
    return {" ".join(str(row[key]).split()) for row in rows if row[key]}


def _by_licence(rows: Iterable[Row], key: str) -> list[str]:
    """One line per licence: `MIT: name, name`."""
    names: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        names[str(row["license"])] |= _distinct([row], key)
    return [f"{licence}: {', '.join(sorted(found))}" for licence, found in sorted(names.items()) if found]


def _section(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "".join(f"- {line}\n" for line in lines)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(attribution(Package(Path(sys.argv[1]))), encoding="utf-8")
