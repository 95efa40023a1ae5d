import base64
import io
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from mllm_embed.evaluation.eval_types import EvalTask, Part, Query, item_key
from mllm_embed.evaluation.gallery import task_gallery, vector_map
from mllm_embed.evaluation.runner import rank_tasks
from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed.types import EmbedInput
from mllm_embed.vectors import finish

pytestmark = pytest.mark.fast

ANGLES = (0, 10, 20, 60, 90)


def colour(value: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (300, 200), (value, 0, 0))


def at(*degrees: float) -> NDArray[np.float32]:
    return finish(np.array([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees], dtype=np.float32))


@pytest.fixture
def task() -> EvalTask:
    """Five candidates at some angles; three queries at 0 degrees ask for the first, the third, the last."""
    candidates = tuple(EmbedInput.of(colour(angle)) for angle in ANGLES)
    queries = tuple(
        Query(EmbedInput.of(f"query {truth}", instruction="Find it."), (truth,), ("test",)) for truth in (0, 2, 4)
    )
    hidden = Query(EmbedInput.of("train"), (4,), ("train",))
    return EvalTask("task", "retrieval", (Part("all", (*queries, hidden), candidates),), "test")


@pytest.fixture
def store(task: EvalTask) -> VectorStore:
    store = VectorStore(None, {})
    store.add([item_key(item) for item in task.parts[0].candidates], at(*ANGLES))
    store.add([item_key(query.item) for query in task.parts[0].queries], at(0, 0, 0, 0))
    return store


def test_the_worst_misses_come_first_and_hits_are_none(task: EvalTask, store: VectorStore) -> None:
    gallery = task_gallery(task, rank_tasks([task], store), store)
    assert [(one.query.text, one.rank) for one in gallery.misses] == [("query 4", 5), ("query 2", 3)]
    assert {one.query.text for one in gallery.strips} <= {"query 0", "query 2", "query 4"}  # never the train query


def test_a_strip_shows_what_was_found_and_what_was_right(task: EvalTask, store: VectorStore) -> None:
    miss = task_gallery(task, rank_tasks([task], store), store).misses[1]
    assert [hit.right for hit in miss.found] == [False, False, True, False, False]
    assert [hit.cosine for hit in miss.found] == pytest.approx(np.cos(np.radians(ANGLES)).tolist(), abs=1e-6)
    assert miss.truth.cosine == pytest.approx(np.cos(np.radians(20)), abs=1e-6)
    assert (miss.instruction, miss.candidates) == ("Find it.", 5)


def test_thumbnails_are_small_copies(task: EvalTask, store: VectorStore) -> None:
    miss = task_gallery(task, rank_tasks([task], store), store).misses[0]
    (uri,) = miss.truth.shown.pictures
    head, data = uri.split(",")
    assert head == "data:image/webp;base64"
    copy = PIL.Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    assert copy.size == (96, 64)
    assert copy.getpixel((40, 30)) == pytest.approx((90, 0, 0), abs=6)


def test_a_query_shows_only_candidates_that_it_sees(task: EvalTask, store: VectorStore) -> None:
    part = task.parts[0]
    own = replace(part, queries=(replace(part.queries[1], extras=(2, 3)),), shared=0)
    gallery = task_gallery(replace(task, parts=(own,)), rank_tasks([replace(task, parts=(own,))], store), store)
    assert [round(hit.cosine, 3) for hit in gallery.strips[0].found] == [0.94, 0.5]
    assert gallery.misses == ()


def test_similarities_of_right_and_of_best_wrong(task: EvalTask, store: VectorStore) -> None:
    histogram = task_gallery(task, rank_tasks([task], store), store).histogram
    assert sum(histogram.right) == sum(histogram.wrong) == 3
    assert histogram.low == pytest.approx(0, abs=1e-6)
    assert histogram.high == pytest.approx(1, abs=1e-6)
    assert histogram.right[0] == 1  # the last candidate, at a right angle
    assert histogram.wrong[-1] == 3  # another candidate lies in the direction of the query, or 10 degrees off


def test_the_map_keeps_neighbours_together(task: EvalTask, store: VectorStore) -> None:
    words = tuple(EmbedInput.of(f"text {i}") for i in range(3))
    store.add([item_key(item) for item in words], at(180, 181, 182))
    texts = EvalTask("texts", "retrieval", (replace(task.parts[0], candidates=words),), "test")
    found = vector_map([task, texts], store)
    assert [point.is_picture for point in found.points] == [True] * 5 + [False] * 3
    assert all(0 <= point.x <= 1 and 0 <= point.y <= 1 for point in found.points)
    assert np.ptp([point.x for point in found.points[5:]]) < 0.1
    assert sum(found.explained) == pytest.approx(1, abs=1e-6)  # two dimensions hold everything
