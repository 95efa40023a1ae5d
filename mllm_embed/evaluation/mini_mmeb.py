"""`mini-mmeb`: the held-out suite that runs offline on a folder of parquet files (see docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mllm_embed.evaluation import mini_mmeb_emoji as emoji
from mllm_embed.evaluation import mini_mmeb_pairs as pairs
from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError, Part, Query
from mllm_embed.evaluation.mini_mmeb_rows import class_name, truth_text
from mllm_embed.evaluation.pools import Selection, hash_order
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Image, Text

POOL = 1000
"""Candidates of a retrieval task, unless it ranks all held-out rows."""
_PHOTOS = ("photos.parquet", ("image_id", "set", "label", "image", "split"))
_NLVR = ("nlvr.parquet", ("image_id", "sentence", "label", "image", "split"))
_EMOJI = (emoji.IMAGES, emoji.CONCEPTS)
_STORIES = (pairs.STORY_PAGES, pairs.STORY_IMAGES)

Build = Callable[[DataFolder, Selection], Sequence[Part]]
Needs = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    meta_task: str
    needs: Needs
    build: Build
    headline: str = ""
    """Appended to the split prefix."""


def _emoji_t2i(data: DataFolder, selection: Selection) -> list[Part]:
    styles = emoji.read_emoji(data, selection)
    return [pairs.text_to_image(emoji.named(one), selection, POOL, name=style) for style, one in styles.items()]


def _emoji_i2t(data: DataFolder, selection: Selection) -> list[Part]:
    styles = emoji.read_emoji(data, selection)
    return [pairs.image_to_text(emoji.named(one), selection, POOL, name=style) for style, one in styles.items()]


def _emoji_i2i(data: DataFolder, selection: Selection) -> list[Part]:
    styles = emoji.read_emoji(data, selection)
    return [emoji.style_to_style(styles, selection, POOL, *direction) for direction in emoji.DIRECTIONS]


def _emoji_tone(data: DataFolder, selection: Selection) -> list[Part]:
    styles = emoji.read_emoji(data, selection)
    return [emoji.change_tone(styles, selection, POOL, style) for style in styles]


def _emoji_group(data: DataFolder, selection: Selection) -> list[Part]:
    return [emoji.groups(data, emoji.read_emoji(data, selection), selection)]


def _grocery_fine(data: DataFolder, selection: Selection) -> list[Part]:
    photos = [row for row in data.rows(*_PHOTOS) if row["set"] == "grocery"]
    names = sorted({class_name(row["label"]) for row in photos})
    held_out = [row for row in photos if selection.is_held_out(row["split"])]
    by_hash = hash_order(held_out, lambda row: str(row["image_id"]))
    # Unseen classes are a slice of their own, and not the first that a smoke run takes.
    asked = sorted(by_hash, key=lambda row: row["split"] != f"{selection.prefix}_inst")[: selection.pool_limit]
    queries = [
        Query(
            EmbedInput((Image(row["image"]),), get_task("classification").query),
            (names.index(class_name(row["label"])),),
            (row["split"],),
        )
        for row in asked
    ]
    return [Part("all", tuple(queries), tuple(pairs.text_target(name) for name in names))]


def _nlvr(data: DataFolder, selection: Selection) -> list[Part]:
    held_out = [row for row in data.rows(*_NLVR) if selection.is_held_out(row["split"])]
    answers = (True, False)
    queries = [
        Query(
            EmbedInput((Image(row["image"]), Text(row["sentence"])), get_task("question").query),
            (answers.index(row["label"]),),
            selection.slices(row["split"]),
        )
        for row in hash_order(held_out, lambda row: str(row["image_id"]))[: selection.pool_limit]
    ]
    return [Part("all", tuple(queries), tuple(pairs.text_target(truth_text(answer)) for answer in answers))]


def _both(read: Callable[[DataFolder], list[pairs.Pair]], size: int | None) -> tuple[Build, Build]:
    return (
        lambda data, selection: [pairs.text_to_image(read(data), selection, size)],
        lambda data, selection: [pairs.image_to_text(read(data), selection, size)],
    )


_ICON_T2I, _ICON_I2T = _both(pairs.icons, POOL)
_FIGURE_T2I, _FIGURE_I2T = _both(pairs.figures, None)
_STORY_T2I, _STORY_I2T = _both(pairs.stories, None)

_ENTRIES: dict[str, _Entry] = {
    "emoji-group": _Entry("classification", _EMOJI, _emoji_group),
    "grocery-fine": _Entry("classification", (_PHOTOS,), _grocery_fine, "_inst"),
    "nlvr": _Entry("VQA", (_NLVR,), _nlvr),
    "emoji-t2i": _Entry("retrieval", _EMOJI, _emoji_t2i),
    "emoji-i2t": _Entry("retrieval", _EMOJI, _emoji_i2t),
    "emoji-i2i": _Entry("retrieval", _EMOJI, _emoji_i2i),
    "icon-t2i": _Entry("retrieval", (pairs.ICONS,), _ICON_T2I),
    "icon-i2t": _Entry("retrieval", (pairs.ICONS,), _ICON_I2T),
    "figure-t2i": _Entry("retrieval", (pairs.FIGURES,), _FIGURE_T2I),
    "figure-i2t": _Entry("retrieval", (pairs.FIGURES,), _FIGURE_I2T),
    "story-t2i": _Entry("retrieval", _STORIES, _STORY_T2I),
    "story-i2t": _Entry("retrieval", _STORIES, _STORY_I2T),
    "emoji-tone": _Entry("composed", _EMOJI, _emoji_tone),
}
TASK_NAMES = tuple(_ENTRIES)
"""Names of all tasks, in the order of reports."""


def build_tasks(data: DataFolder, selection: Selection, names: Sequence[str] = TASK_NAMES) -> list[EvalTask]:
    """Build tasks of the suite.

    Args:
        data: the folder.
        selection: what is held out, and pool limits.
        names: which tasks, in any order.

    Returns:
        the tasks in the order of `TASK_NAMES`; parts without a held-out query are left out.

    Raises:
        EvaluationError: an unknown task; missing files or columns, all listed; a task without held-out rows.
    """
    if unknown := [name for name in names if name not in _ENTRIES]:
        raise EvaluationError(f"tasks must be among {', '.join(TASK_NAMES)}, but one is {unknown[0]!r}")
    chosen = {name: entry for name, entry in _ENTRIES.items() if name in names}
    data.check([need for entry in chosen.values() for need in entry.needs])
    tasks = []
    for name, entry in chosen.items():
        headline = selection.prefix + entry.headline
        parts = [part for part in entry.build(data, selection) if _has_queries(part, headline)]
        if not parts:
            raise EvaluationError(f"{data.path} has no {headline!r} rows for {name}")
        tasks.append(EvalTask(name, entry.meta_task, tuple(parts), headline))
    return tasks


def _has_queries(part: Part, headline: str) -> bool:
    return any(headline in query.slices for query in part.queries)
