"""`mini-mmeb`: the held-out suite that runs offline on a folder of parquet files (see docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mllm_embed.evaluation import mini_mmeb_charts as charts
from mllm_embed.evaluation import mini_mmeb_classes as classes
from mllm_embed.evaluation import mini_mmeb_clips as clips
from mllm_embed.evaluation import mini_mmeb_emoji as emoji
from mllm_embed.evaluation import mini_mmeb_languages as languages
from mllm_embed.evaluation import mini_mmeb_pairs as pairs
from mllm_embed.evaluation import mini_mmeb_robust as robust
from mllm_embed.evaluation import mini_mmeb_scenes as scenes
from mllm_embed.evaluation import mini_mmeb_texts as texts
from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import ROBUSTNESS, EvalTask, EvaluationError, Part
from mllm_embed.evaluation.pools import Selection

POOL = 1000
"""Candidates of a retrieval task, unless it ranks all held-out rows."""
_EMOJI = (emoji.IMAGES, emoji.CONCEPTS)
_STORIES = (pairs.STORY_PAGES, pairs.STORY_IMAGES)

Build = Callable[[DataFolder, Selection], Sequence[Part]]
BuildOne = Callable[[DataFolder, Selection], Part]
BuildStyle = Callable[[emoji.Styles, Selection, str], Part]
BuildStyles = Callable[[DataFolder, emoji.Styles, Selection], Part]
Needs = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    meta_task: str
    needs: Needs
    build: Build
    headline: str = ""
    """Appended to the split prefix."""


def _one(build: BuildOne) -> Build:
    """A task of one part."""
    return lambda data, selection: [build(data, selection)]


def _each_style(build: BuildStyle) -> Build:
    """A task with one part per emoji style."""

    def parts(data: DataFolder, selection: Selection) -> list[Part]:
        styles = emoji.read_emoji(data, selection)
        return [build(styles, selection, style) for style in styles]

    return parts


def _all_styles(build: BuildStyles) -> Build:
    """A task of one part over the emoji of all styles."""
    return lambda data, selection: [build(data, emoji.read_emoji(data, selection), selection)]


def _emoji_i2i(data: DataFolder, selection: Selection) -> list[Part]:
    styles = emoji.read_emoji(data, selection)
    return [emoji.style_to_style(styles, selection, POOL, *direction) for direction in emoji.DIRECTIONS]


def _emoji_names(data: DataFolder, selection: Selection) -> list[Part]:
    return languages.emoji_names(data, emoji.read_emoji(data, selection), selection, POOL)


def _both(read: Callable[[DataFolder], list[pairs.Pair]], size: int | None) -> tuple[Build, Build]:
    return (
        _one(lambda data, selection: pairs.text_to_image(read(data), selection, size)),
        _one(lambda data, selection: pairs.image_to_text(read(data), selection, size)),
    )


_EMOJI_T2I = _each_style(
    lambda styles, selection, style: pairs.text_to_image(emoji.named(styles[style]), selection, POOL, name=style)
)
_EMOJI_I2T = _each_style(
    lambda styles, selection, style: pairs.image_to_text(emoji.named(styles[style]), selection, POOL, name=style)
)
_TONE = _each_style(lambda styles, selection, style: emoji.change_tone(styles, selection, POOL, style))
_GENDER = _each_style(lambda styles, selection, style: emoji.change_gender(styles, selection, POOL, style))
_GROUP = _all_styles(lambda data, styles, selection: emoji.groups(data, styles, selection, "group"))
_SUBGROUP = _all_styles(lambda data, styles, selection: emoji.groups(data, styles, selection, "subgroup"))
_GROCERY = _one(lambda data, selection: classes.photo_classes(data, selection, "grocery"))
_CLOTHING = _one(lambda data, selection: classes.photo_classes(data, selection, "clothing"))
_ICON_T2I, _ICON_I2T = _both(pairs.icons, POOL)
_FIGURE_T2I, _FIGURE_I2T = _both(pairs.figures, None)
_STORY_T2I, _STORY_I2T = _both(pairs.stories, None)
_CAPTION_T2I, _ = _both(pairs.figure_captions, None)
_DOC_T2I = _one(lambda data, selection: pairs.text_to_image(pairs.pages(data), selection, POOL, task="document"))
_EMOJI_T2T = _one(lambda data, selection: texts.emoji_words(data, selection, POOL))
_SPRITE_SCENE = _all_styles(lambda _data, styles, selection: scenes.sprites_in_scenes(styles, selection))

_ENTRIES: dict[str, _Entry] = {
    "emoji-group": _Entry("classification", _EMOJI, _GROUP),
    "emoji-subgroup": _Entry("classification", _EMOJI, _SUBGROUP),
    "grocery-fine": _Entry("classification", (classes.PHOTOS,), _GROCERY, "_inst"),
    "clothing": _Entry("classification", (classes.PHOTOS,), _CLOTHING, "_inst"),
    "figure-kind": _Entry("classification", (classes.FIGURE_KINDS,), _one(classes.figure_kinds)),
    "clip-action": _Entry("classification", (clips.CLIPS,), _one(clips.clip_actions)),
    "nlvr": _Entry("VQA", (classes.NLVR,), _one(classes.nlvr)),
    "chart-mark": _Entry("VQA", (charts.CHARTS,), _one(charts.chart_questions)),
    "emoji-t2i": _Entry("retrieval", _EMOJI, _EMOJI_T2I),
    "emoji-i2t": _Entry("retrieval", _EMOJI, _EMOJI_I2T),
    "emoji-i2i": _Entry("retrieval", _EMOJI, _emoji_i2i),
    "icon-t2i": _Entry("retrieval", (pairs.ICONS,), _ICON_T2I),
    "icon-i2t": _Entry("retrieval", (pairs.ICONS,), _ICON_I2T),
    "figure-t2i": _Entry("retrieval", (pairs.FIGURES,), _FIGURE_T2I),
    "figure-i2t": _Entry("retrieval", (pairs.FIGURES,), _FIGURE_I2T),
    "figure-caption-t2i": _Entry("retrieval", (pairs.CAPTIONS,), _CAPTION_T2I),
    "story-t2i": _Entry("retrieval", _STORIES, _STORY_T2I),
    "story-i2t": _Entry("retrieval", _STORIES, _STORY_I2T),
    "emoji-t2t": _Entry("text", (texts.KEYWORDS,), _EMOJI_T2T),
    "figure-t2t": _Entry("text", (texts.FIGURE_TEXTS,), _one(texts.figure_texts)),
    "emoji-tone": _Entry("composed", _EMOJI, _TONE),
    "emoji-gender": _Entry("composed", _EMOJI, _GENDER),
    "clip-edit": _Entry("composed", (clips.CLIPS,), _one(clips.edit_clip)),
    "nlvr-object": _Entry("grounding", (scenes.OBJECTS,), _one(scenes.named_objects)),
    "sprite-scene": _Entry("grounding", _EMOJI, _SPRITE_SCENE),
    "doc-t2i": _Entry("documents", (pairs.PAGES, pairs.FIGURES), _DOC_T2I),
    "clip-t2v": _Entry("video", (clips.CLIPS,), _one(clips.text_to_clip)),
    "clip-v2t": _Entry("video", (clips.CLIPS,), _one(clips.clip_to_text)),
    "emoji-names": _Entry("multilingual", (*_EMOJI, languages.NAMES), _emoji_names),
    "story-pages": _Entry("multilingual", (languages.PAGE_TEXTS, pairs.STORY_IMAGES), languages.story_pages),
    "story-texts": _Entry("multilingual", (languages.PAGE_TEXTS, pairs.STORY_IMAGES), languages.story_texts),
    "sprite-condition": _Entry("conditional", _EMOJI, _all_styles(scenes.sides_of_scenes)),
    "robust-emoji-t2i": _Entry(ROBUSTNESS, _EMOJI, partial(robust.names_to_emoji, size=POOL)),
    "robust-icon-t2i": _Entry(ROBUSTNESS, (pairs.ICONS,), partial(robust.words_to_icon, size=POOL)),
    "robust-figure-t2i": _Entry(ROBUSTNESS, (pairs.FIGURES,), robust.text_to_figure),
    "robust-emoji-i2i": _Entry(ROBUSTNESS, _EMOJI, partial(robust.emoji_to_emoji, size=POOL)),
    "robust-emoji-i2t": _Entry(ROBUSTNESS, _EMOJI, partial(robust.emoji_to_name, size=POOL)),
    "robust-figure-i2t": _Entry(ROBUSTNESS, (pairs.FIGURES,), robust.figure_to_text),
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
