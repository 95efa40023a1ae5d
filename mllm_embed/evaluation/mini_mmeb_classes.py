"""Tasks of `mini-mmeb` that choose among classes: photos, kinds of figures, actions of clips, and true or false."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mllm_embed.evaluation.data_folder import DataFolder, Row
from mllm_embed.evaluation.eval_types import Part, Query
from mllm_embed.evaluation.mini_mmeb_pairs import text_target
from mllm_embed.evaluation.mini_mmeb_rows import class_name, truth_text
from mllm_embed.evaluation.pools import Selection, hash_order
from mllm_embed.tasks import get_task
from mllm_embed.types import Content, EmbedInput, Image, Text

PHOTOS = ("photos.parquet", ("image_id", "set", "label", "image", "split"))
NLVR = ("nlvr.parquet", ("image_id", "sentence", "label", "image", "split"))
FIGURE_KINDS = ("openstax_figures-*.parquet", ("image_id", "kind", "image", "split"))
NO_KIND = "other"
"""Figures of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Something with a class.

    Attributes:
        content: what is shown.
        label: its class, as the data spell it.
        slices: the groups of queries that it counts for.
    """

    content: tuple[Content, ...]
    label: str
    slices: tuple[str, ...]


def class_part(asked: Iterable[Labelled], labels: Iterable[str]) -> Part:
    """Ask each item for the name of its class, among the names of all classes in alphabetical order."""
    names = sorted({class_name(label) for label in labels})
    queries = tuple(
        Query(
            EmbedInput(one.content, get_task("classification").query),
            (names.index(class_name(one.label)),),
            one.slices,
        )
        for one in asked
    )
    return Part("all", queries, tuple(text_target(name) for name in names))


def photo_classes(data: DataFolder, selection: Selection, photo_set: str) -> Part:
    """Photos of one set ask for their class; unseen classes are a slice of their own, which is not the headline."""
    photos = [row for row in data.rows(*PHOTOS) if row["set"] == photo_set]
    held_out = _held_out(photos, selection)
    # A smoke run takes the first rows; they must not all be of unseen classes.
    asked = sorted(held_out, key=lambda row: row["split"] != f"{selection.prefix}_inst")[: selection.pool_limit]
    labelled = [Labelled((Image(row["image"]),), row["label"], (row["split"],)) for row in asked]
    return class_part(labelled, (row["label"] for row in photos))


def figure_kinds(data: DataFolder, selection: Selection) -> Part:
    """Figures ask for their kind; those of kind `other` are left out."""
    figures = [row for row in data.rows(*FIGURE_KINDS) if row["kind"] and row["kind"] != NO_KIND]
    asked = _held_out(figures, selection)[: selection.pool_limit]
    labelled = [Labelled((Image(row["image"]),), row["kind"], selection.slices(row["split"])) for row in asked]
    return class_part(labelled, (row["kind"] for row in figures))


def nlvr(data: DataFolder, selection: Selection) -> Part:
    """Scene and sentence ask whether the sentence is true."""
    answers = (True, False)
    queries = [
        Query(
            EmbedInput((Image(row["image"]), Text(row["sentence"])), get_task("question").query),
            (answers.index(row["label"]),),
            selection.slices(row["split"]),
        )
        for row in _held_out(data.rows(*NLVR), selection)[: selection.pool_limit]
    ]
    return Part("all", tuple(queries), tuple(text_target(truth_text(answer)) for answer in answers))


def _held_out(rows: Sequence[Row], selection: Selection) -> list[Row]:
    return hash_order((row for row in rows if selection.is_held_out(row["split"])), lambda row: str(row["image_id"]))
