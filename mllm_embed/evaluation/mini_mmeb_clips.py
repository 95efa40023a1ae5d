"""Tasks of `mini-mmeb` on clips: captions, actions, and the same clip with one thing changed.

A clip is its frames as pictures in order, in one input.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import PIL.Image

from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import EvaluationError, Part, Query
from mllm_embed.evaluation.mini_mmeb_classes import Labelled, class_part
from mllm_embed.evaluation.mini_mmeb_pairs import text_target
from mllm_embed.evaluation.mini_mmeb_rows import clip_edit
from mllm_embed.evaluation.pools import Selection, hash_order
from mllm_embed.tasks import get_task
from mllm_embed.types import EmbedInput, Image, Text

CLIPS = (
    "lpc_clips.parquet",
    ("clip_id", "character", "variant", "action", "direction", "caption", "frames", "strip", "split"),
)
T = TypeVar("T")
BASE = "base"
"""Variant of a clip that others are edits of."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One held-out clip.

    Attributes:
        clip_id: what clips are ordered by.
        frames: its pictures, in order.
        strip: the encoded strip of all frames; clips of equal strips are one candidate.
        caption: what is seen.
        action: class of what is done.
        twin: what an edited clip shares with the clip that it was made of.
        is_base: whether other clips are edits of it.
        split: the row's split.
    """

    clip_id: str
    frames: tuple[Image, ...]
    strip: bytes
    caption: str
    action: str
    twin: tuple[str, str, str]
    is_base: bool
    split: str


def read_clips(data: DataFolder, selection: Selection) -> list[Clip]:
    """Return the held-out clips, in hash order.

    Raises:
        EvaluationError: a strip that is not as many frames of equal width as its row says.
    """
    rows = [row for row in data.rows(*CLIPS) if selection.is_held_out(row["split"])]
    clips = [
        Clip(
            clip_id=row["clip_id"],
            frames=_frames(row["clip_id"], row["strip"], row["frames"]),
            strip=row["strip"],
            caption=row["caption"],
            action=row["action"],
            twin=(str(row["character"]), row["action"], row["direction"]),
            is_base=row["variant"] == BASE,
            split=row["split"],
        )
        for row in rows
    ]
    return hash_order(clips, lambda clip: clip.clip_id)


def clip_actions(data: DataFolder, selection: Selection) -> Part:
    """Clips ask for what is done in them."""
    clips = read_clips(data, selection)[: selection.pool_limit]
    asked = [Labelled(clip.frames, clip.action, selection.slices(clip.split)) for clip in clips]
    return class_part(asked, (row["action"] for row in data.rows(*CLIPS)))


def text_to_clip(data: DataFolder, selection: Selection) -> Part:
    """Captions ask for their clips; every clip of an equal caption is right."""
    clips = read_clips(data, selection)[: selection.pool_limit]
    places = _places([clip.strip for clip in clips])
    by_caption = {clip.caption: clip for clip in reversed(clips)}
    queries = [
        Query(
            EmbedInput((Text(caption),), get_task("text-to-image").query),
            tuple(sorted({places[clip.strip] for clip in clips if clip.caption == caption})),
            selection.slices(first.split),
        )
        for caption, first in reversed(by_caption.items())
    ]
    return Part("all", tuple(queries), _candidates(clips))


def clip_to_text(data: DataFolder, selection: Selection) -> Part:
    """Clips ask for their captions; equal captions are one candidate."""
    clips = read_clips(data, selection)[: selection.pool_limit]
    places = _places([clip.caption for clip in clips])
    queries = [
        Query(
            EmbedInput(clip.frames, get_task("image-to-text").query),
            tuple(sorted({places[other.caption] for other in clips if other.strip == clip.strip})),
            selection.slices(clip.split),
        )
        for clip in _distinct(clips)
    ]
    return Part("all", tuple(queries), tuple(text_target(caption) for caption in places))


def edit_clip(data: DataFolder, selection: Selection) -> Part:
    """A clip and a wish ask for its twin with one thing changed, among all clips, the one asked with among them.

    Edits that cannot be seen (hair under a hood) or named are not asked.
    """
    clips = read_clips(data, selection)
    edits = _edits(clips)[: selection.pool_limit]
    if selection.pool_limit is not None:  # a smoke run keeps both clips of what it asks
        clips = [clip for base, edited, _ in edits for clip in (base, edited)]
    places = _places([clip.strip for clip in clips])
    queries = [
        Query(
            EmbedInput((*base.frames, Text(edit)), get_task("composed").query),
            (places[edited.strip],),
            selection.slices(edited.split),
        )
        for base, edited, edit in edits
    ]
    return Part("all", tuple(queries), _candidates(clips))


def _edits(clips: Sequence[Clip]) -> list[tuple[Clip, Clip, str]]:
    """Clips with their edited twins and what was changed, in words."""
    bases = {clip.twin: clip for clip in clips if clip.is_base}
    twins = [(bases[clip.twin], clip) for clip in clips if not clip.is_base and clip.twin in bases]
    return [
        (base, clip, edit)
        for base, clip in twins
        if base.strip != clip.strip and (edit := clip_edit(base.caption, clip.caption))
    ]


def _frames(clip_id: str, strip: bytes, count: int) -> tuple[Image, ...]:
    picture = PIL.Image.open(io.BytesIO(strip)).convert("RGBA")
    width, rest = divmod(picture.width, count)
    if rest:
        raise EvaluationError(f"clip {clip_id} must be {count} frames of equal width, but is {picture.width} px wide")
    return tuple(Image(picture.crop((width * i, 0, width * (i + 1), picture.height))) for i in range(count))


def _candidates(clips: Sequence[Clip]) -> tuple[EmbedInput, ...]:
    target = get_task("text-to-image").target
    return tuple(EmbedInput(clip.frames, target) for clip in _distinct(clips))


def _distinct(clips: Sequence[Clip]) -> list[Clip]:
    first: dict[bytes, Clip] = {}
    for clip in clips:
        first.setdefault(clip.strip, clip)
    return list(first.values())


def _places(values: Sequence[T]) -> dict[T, int]:
    return {value: place for place, value in enumerate(dict.fromkeys(values))}
