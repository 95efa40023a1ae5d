"""The data package on disk -> rows in memory, licence and split rules applied.

Only `train` rows are read, and share-alike rows are dropped, by licence and by credit: shipped weights must not learn
from them.
Pictures stay encoded (a few KiB each) and are decoded when an example is drawn.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mllm_embed.errors import MllmEmbedError
from mllm_embed.evaluation.mini_mmeb_classes import NO_KIND
from mllm_embed.evaluation.mini_mmeb_rows import tone_edit

DATA_VARIABLE = "MLLM_EMBED_DATA"
Row = dict[str, Any]
_SHARE_ALIKE = re.compile(r"share[\s-]?alike|\bBY[\s-](?:NC[\s-])?SA\b", re.IGNORECASE)


class DataNotFound(MllmEmbedError):
    """The folder of the data package is not given or lacks a file."""


def data_folder(folder: str | None) -> Path:
    """Return the data package's folder, from the option or from the environment.

    Raises:
        DataNotFound: neither names an existing folder.
    """
    name = folder or os.environ.get(DATA_VARIABLE)
    if not name or not Path(name).is_dir():
        raise DataNotFound(
            f"this recipe reads the data package: set {DATA_VARIABLE} or data.folder to its folder (now {name!r}); "
            "the toy-shapes tasks need no data"
        )
    return Path(name)


def read_rows(folder: Path, pattern: str) -> list[Row]:
    """Read the trainable rows of all files that match `pattern`, in file order.

    Raises:
        DataNotFound: no file matches.
    """
    files = sorted(folder.glob(pattern))
    if not files:
        raise DataNotFound(f"{folder} has no {pattern}")
    rows: list[Row] = [row for file in files for row in pq.read_table(file).to_pylist()]
    return [row for row in rows if row["split"] == "train" and not is_share_alike(row)]


def is_share_alike(row: Row) -> bool:
    """Whether a row's licence, or the credit of a third party whose picture it shows, is a share-alike one."""
    return any(_SHARE_ALIKE.search(str(row.get(column) or "")) for column in ("license", "credit"))


class Package:
    """The data package, each file read when first needed.

    Attributes are lists of rows; pictures are bytes under the key `image`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cache: dict[str, list[Row]] = {}

    def rows(self, pattern: str) -> list[Row]:
        """Return the trainable rows of one file pattern."""
        if pattern not in self._cache:
            self._cache[pattern] = read_rows(self._folder, pattern)
        return self._cache[pattern]

    def emoji(self) -> list[Row]:
        """One row per emoji picture, with its concept's columns under `concept`."""
        concepts = {row["concept_id"]: row for row in self.rows("emoji_concepts.parquet")}
        pictures = self.rows("emoji_images-*.parquet")
        return [{**row, "concept": concepts[row["concept_id"]]} for row in pictures if row["concept_id"] in concepts]

    def people(self) -> list[Row]:
        """Emoji pictures of people and bodies: they differ in little, so a batch of them alone is hard."""
        return [row for row in self.emoji() if row["concept"]["group"] == "people-body"]

    def couples(self) -> list[Row]:
        """Emoji pictures of two people, or two hands, each with a skin tone of its own."""
        return [row for row in self.emoji() if len(row["concept"]["skin_tones"]) == 2]

    def emoji_groups(self) -> list[list[Row]]:
        """Pictures of one concept in several styles, at least two each."""
        return grouped(self.emoji(), "concept_id")

    def emoji_edits(self) -> list[Row]:
        """Pairs of pictures in one style that differ in skin tone or gender: keys before, after, edit, others.

        `others` are what other edits of the same kind make of the same picture.
        """
        pictures = {(row["concept_id"], row["style"]): row for row in self.emoji()}
        return _tone_edits(pictures) + _gender_edits(list(pictures.values()))

    def emoji_siblings(self) -> list[tuple[Row, list[Row]]]:
        """Emoji pictures with the pictures of the same family and style: they differ in skin tone or gender only."""
        rows = [{**row, "family": (row["concept"]["family_id"], row["style"])} for row in self.emoji()]
        return [(row, family) for family in grouped(rows, "family") for row in family]

    def icons(self) -> list[Row]:
        """One row per icon that has a name."""
        return [row for row in self.rows("icons.parquet") if row["name"]]

    def icon_groups(self) -> list[list[Row]]:
        """Icons of one name in several sets or styles, at least two each."""
        return grouped(self.icons(), "name")

    def figures(self) -> list[Row]:
        """One row per textbook figure with alternative text."""
        return [row for row in self.rows("openstax_figures-*.parquet") if row["alt"]]

    def figures_of_a_kind(self) -> list[Row]:
        """Those of them whose kind is known: graph, table, map, ..."""
        return [row for row in self.figures() if row["kind"] and row["kind"] != NO_KIND]

    def documents(self) -> list[Row]:
        """One row per graph, table, map or screenshot at reading size, with the texts of the figure that it shows."""
        figures = {row["image_id"]: row for row in self.figures()}
        pages = self.rows("openstax_docs_hires.parquet")
        return [{**figures[page["image_id"]], **page} for page in pages if page["image_id"] in figures]

    def stories(self) -> list[Row]:
        """One row per picture-book page, with its picture."""
        pictures = {row["image_sha"]: row["image"] for row in self.rows("story_images.parquet")}
        pages = self.rows("story_pages.parquet")
        return [{**page, "image": pictures[page["sha"]]} for page in pages if page["sha"] in pictures]

    def photos(self) -> list[Row]:
        """One row per grocery or clothing photo."""
        return self.rows("photos.parquet")

    def scenes(self) -> list[Row]:
        """One row per NLVR scene and sentence."""
        return self.rows("nlvr.parquet")

    def charts(self) -> list[Row]:
        """One row per Vega-Lite chart."""
        return self.rows("charts_vegalite.parquet")

    def described_charts(self) -> list[Row]:
        """One row per Vega-Lite chart that says what it shows."""
        return [row for row in self.charts() if row["spec_description"] or row["title"]]


def grouped(rows: Sequence[Row], key: str) -> list[list[Row]]:
    """Group rows by a column, keep groups of two and more."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return [group for group in groups.values() if len(group) > 1]


def _tone_edits(pictures: Mapping[tuple[str, str], Row]) -> list[Row]:
    """Pictures by concept and style -> those without a skin tone, and the same with one."""
    toned: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in pictures.values():
        base = (row["concept"]["base_id"], row["style"])
        if len(row["concept"]["skin_tones"]) == 1 and pictures.get(base, row) is not row:
            toned[base].append(row)
    return [
        {
            "before": pictures[base],
            "after": row,
            "edit": tone_edit(row["concept"]["skin_tones"][0]),
            "others": [other for other in rows if other is not row],
        }
        for base, rows in toned.items()
        for row in rows
    ]


def _gender_edits(pictures: Sequence[Row]) -> list[Row]:
    """Pictures of one family, style and skin tone as a woman and as a man."""
    found: dict[tuple[str, str, str], dict[str, Row]] = defaultdict(dict)
    for row in pictures:
        concept = row["concept"]
        if concept["gender"]:
            key = (concept["family_id"], row["style"], json.dumps(concept["skin_tones"]))
            found[key][concept["gender"]] = row
    edits = []
    for pair in found.values():
        if len(pair) == 2:
            for before, after in (("man", "woman"), ("woman", "man")):
                edit = f"the same, as a {after}"
                edits.append({"before": pair[before], "after": pair[after], "edit": edit, "others": []})
    return edits
