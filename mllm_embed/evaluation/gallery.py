"""What a reader of a report wants to see: queries with what was found, the worst misses, similarities, a map."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from mllm_embed.evaluation.eval_types import EvalTask, Part, Query, item_key
from mllm_embed.evaluation.pools import hash_order
from mllm_embed.evaluation.query_ranks import QueryRanks
from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed.media import MediaPolicy, load_sync
from mllm_embed.types import EmbedInput, Image, Text
from mllm_embed.vectors import finish

_THUMBNAIL = 96
"""Greatest side of a thumbnail, in pixels."""
_WIDE = 200
"""The same for pictures at least twice as wide as high, such as scenes."""
_FOUND = 5
_STRIPS = 2
_MISSES = 2
_MAP_POINTS = 1200
_MAP_PICTURES = 90
_BINS = 40


@dataclass(frozen=True, slots=True)
class Shown:
    """An item as a reader sees it.

    Attributes:
        pictures: data URIs of small copies, in order.
        text: its texts, joined.
    """

    pictures: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One found candidate: what it is, its cosine, and whether it is right."""

    shown: Shown
    cosine: float
    right: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """One query with its right answer and what was found instead or indeed.

    Attributes:
        part: the part of the task.
        instruction: that the query was embedded with.
        query: what was asked.
        truth: the best right candidate.
        rank: where it stood.
        candidates: how many the query saw.
        found: the first candidates.
    """

    part: str
    instruction: str
    query: Shown
    truth: Hit
    rank: int
    candidates: int
    found: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of cosines in equal bins from `low` to `high`: of queries with their answer, and with the best wrong."""

    low: float
    high: float
    right: tuple[int, ...]
    wrong: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TaskGallery:
    """What is shown of one task: queries in hash order, those that went worst, and similarities."""

    task: str
    strips: tuple[Strip, ...]
    misses: tuple[Strip, ...]
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class Point:
    """One candidate on the map: its place in [0, 1] x [0, 1], whether it is a picture, and a small copy for some."""

    x: float
    y: float
    is_picture: bool
    shown: Shown | None


@dataclass(frozen=True, slots=True)
class VectorMap:
    """Candidates by the first two principal components, with the shares of variance that these explain."""

    points: tuple[Point, ...]
    explained: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Asked:
    part: Part
    query: Query
    outcome: QueryRanks
    vector: NDArray[np.float32]
    candidates: NDArray[np.float32]


def task_gallery(
    task: EvalTask, outcomes: Sequence[QueryRanks], store: VectorStore, *, dimensions: int | None = None
) -> TaskGallery:
    """Choose what is shown of one task: two queries in hash order, and the two whose answers stood lowest.

    Args:
        task: the task.
        outcomes: of its queries, in order.
        store: vectors of all its items.
        dimensions: width that vectors are cut to; None keeps all.
    """
    asked = _asked(task, outcomes, store, dimensions)
    order = hash_order(asked, lambda one: f"{one.part.name} {item_key(one.query.item)}")
    worst = sorted(order, key=lambda one: -one.outcome.ranks[0] / one.outcome.candidates)
    worst = [one for one in worst if one.outcome.ranks[0] > 1]
    return TaskGallery(
        task.name,
        tuple(map(_strip, order[:_STRIPS])),
        tuple(map(_strip, worst[:_MISSES])),
        _histogram(asked),
    )


def vector_map(tasks: Sequence[EvalTask], store: VectorStore, *, dimensions: int | None = None) -> VectorMap:
    """Project candidates of one modality each on the first two principal components."""
    items = {item_key(item): item for task in tasks for part in task.parts for item in part.candidates}
    kinds: dict[bool, list[str]] = {
        is_picture: hash_order((key for key, item in items.items() if _is_only(item, kind)), str)[: _MAP_POINTS // 2]
        for is_picture, kind in ((True, Image), (False, Text))
    }
    keys = kinds[True] + kinds[False]
    vectors = finish(store.matrix(keys), dimensions).astype(np.float64)
    centred = vectors - vectors.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    places = centred @ axes[:2].T  # [N, 2]
    places = (places - places.min(0)) / np.maximum(np.ptp(places, axis=0), 1e-12)
    shares = sizes**2 / max(float((sizes**2).sum()), 1e-12)
    pictured = set(kinds[True][:_MAP_PICTURES])
    points = [
        Point(float(x), float(y), place < len(kinds[True]), _show(items[key]) if key in pictured else None)
        for place, (key, (x, y)) in enumerate(zip(keys, places, strict=True))
    ]
    return VectorMap(tuple(points), (float(shares[0]), float(shares[1])))


def _asked(task: EvalTask, outcomes: Sequence[QueryRanks], store: VectorStore, dimensions: int | None) -> list[_Asked]:
    """The headline queries of a task with their vectors and outcomes."""
    asked, start = [], 0
    for part in task.parts:
        candidates = finish(store.matrix([item_key(item) for item in part.candidates]), dimensions)
        vectors = finish(store.matrix([item_key(query.item) for query in part.queries]), dimensions)
        own = outcomes[start : start + len(part.queries)]
        start += len(part.queries)
        asked += [
            _Asked(part, query, outcome, vector, candidates)
            for query, outcome, vector in zip(part.queries, own, vectors, strict=True)
            if task.headline in query.slices
        ]
    return asked


def _seen(one: _Asked) -> NDArray[np.int64]:
    shared = (place for place in range(one.part.pool) if place not in one.query.hidden)
    return np.array([*shared, *one.query.extras], dtype=np.int64)


def _strip(one: _Asked) -> Strip:
    places = _seen(one)
    cosines = one.candidates[places] @ one.vector
    order = np.argsort(-cosines, kind="stable")[:_FOUND]
    truths = set(one.query.truths)
    best = max(truths, key=lambda place: float(one.candidates[place] @ one.vector))
    return Strip(
        one.part.name,
        one.query.item.instruction or "",
        _show(one.query.item),
        Hit(_show(one.part.candidates[best]), float(one.candidates[best] @ one.vector), right=True),
        one.outcome.ranks[0],
        one.outcome.candidates,
        tuple(
            Hit(_show(one.part.candidates[places[i]]), float(cosines[i]), right=int(places[i]) in truths) for i in order
        ),
    )


def _histogram(asked: Sequence[_Asked]) -> Histogram:
    right, wrong = [], []
    for one in asked:
        truths, extras = list(one.query.truths), list(one.query.extras)
        cosines = one.candidates @ one.vector
        right.append(float(cosines[truths].max()))
        cosines[[*truths, *one.query.hidden]] = -np.inf
        best = max(cosines[: one.part.pool].max(initial=-np.inf), cosines[extras].max(initial=-np.inf))
        if best > -np.inf:
            wrong.append(float(best))
    low, high = min(right + wrong), max(right + wrong)
    edges = np.linspace(low, high if high > low else low + 1e-6, _BINS + 1)
    counts = [tuple(int(count) for count in np.histogram(values, edges)[0]) for values in (right, wrong)]
    return Histogram(low, high, counts[0], counts[1])


def _show(item: EmbedInput) -> Shown:
    pictures = tuple(_thumbnail(content) for content in item.content if isinstance(content, Image))
    return Shown(pictures, " ".join(content.text for content in item.content if isinstance(content, Text)))


def _thumbnail(image: Image) -> str:
    picture = load_sync(image, MediaPolicy.local())
    side = _WIDE if picture.width >= 2 * picture.height else _THUMBNAIL
    picture.thumbnail((side, side), PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _is_only(item: EmbedInput, kind: type[Image] | type[Text]) -> bool:
    return all(isinstance(content, kind) for content in item.content)
