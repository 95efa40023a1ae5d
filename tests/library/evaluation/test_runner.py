import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mllm_embed.errors import InputTooLong
from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.encoders import PixelEncoder
from mllm_embed.evaluation.eval_types import EvalTask, EvaluationError, Part, Query, item_key
from mllm_embed.evaluation.mini_mmeb import TASK_NAMES, build_tasks
from mllm_embed.evaluation.pools import Selection
from mllm_embed.evaluation.runner import PICTURES, embed_all, overall, rank_tasks, score_tasks, supported
from mllm_embed.evaluation.vector_store import VectorStore
from mllm_embed.types import EmbedInput, Image
from mllm_embed.vectors import finish

pytestmark = pytest.mark.fast


class HashEncoder:
    """A random but reproducible unit vector per item; counts what it encodes."""

    def __init__(self, constant: bool = False) -> None:
        self.constant = constant
        self.seen: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"name": "hash", "fingerprint": "hash"}

    def accepts(self, item: EmbedInput) -> bool:
        return True

    def encode(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
        self.seen += [item_key(item) for item in items]
        seeds = [0 if self.constant else int(item_key(item)[:8], 16) for item in items]
        rows = np.stack([np.random.default_rng(seed).standard_normal(16) for seed in seeds])
        return finish(rows.astype(np.float32))


@pytest.fixture(scope="module")
def tasks(data_path: Path) -> list[EvalTask]:
    return build_tasks(DataFolder(data_path), Selection())


def measure(tasks: Sequence[EvalTask], encoder: HashEncoder, dimensions: int | None = None) -> dict[str, Any]:
    store = VectorStore(None, encoder.describe())
    embed_all(tasks, encoder, store, lambda _done, _total: None)
    return score_tasks(tasks, rank_tasks(tasks, store, dimensions=dimensions))


def test_each_distinct_item_is_encoded_once(tasks: list[EvalTask]) -> None:
    encoder = HashEncoder()
    calls: list[tuple[int, int]] = []
    store = VectorStore(None, encoder.describe())
    counts = embed_all(tasks, encoder, store, lambda done, total: calls.append((done, total))).counts
    distinct = {item_key(item) for task in tasks for item in task.items()}
    assert len(encoder.seen) == len(set(encoder.seen)) == len(distinct)
    assert counts == {"items": len(distinct), "pictures": counts["pictures"], "embedded": len(distinct)}
    assert calls[-1] == (len(distinct), len(distinct))


def test_an_item_that_is_refused_costs_its_tasks_only(tasks: list[EvalTask]) -> None:
    class Strict(HashEncoder):
        def encode(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
            for place, item in enumerate(items):
                if any(getattr(content, "text", "") == "true" for content in item.content):
                    raise InputTooLong("a text may have at most 3 tokens, but has 4", index=place)
            return super().encode(items)

    encoder = Strict()
    store = VectorStore(None, encoder.describe())
    done = embed_all(tasks, encoder, store, lambda _done, _total: None)
    assert done.failures(tasks) == {"nlvr": "a text may have at most 3 tokens, but has 4"}
    others = [task for task in tasks if task.name != "nlvr"]
    assert score_tasks(others, rank_tasks(others, store)) == measure(others, HashEncoder())


def test_a_killed_run_resumes(tasks: list[EvalTask], tmp_path: Path) -> None:
    class Killed(HashEncoder):
        def encode(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
            if self.seen:
                raise KeyboardInterrupt
            return super().encode(items)

    encoder = Killed()
    with pytest.raises(KeyboardInterrupt):
        embed_all(tasks, encoder, VectorStore(tmp_path, encoder.describe()), lambda _done, _total: None)
    again = HashEncoder()
    store = VectorStore(tmp_path, again.describe())
    assert len(store) == len(encoder.seen) > 0
    embed_all(tasks, again, store, lambda _done, _total: None)
    assert not set(again.seen) & set(encoder.seen)
    assert score_tasks(tasks, rank_tasks(tasks, store)) == measure(tasks, HashEncoder())


def test_few_pictures_are_in_memory_at_once(tasks: list[EvalTask]) -> None:
    class Counting(HashEncoder):
        def encode(self, items: Sequence[EmbedInput]) -> NDArray[np.float32]:
            counts.append(sum(isinstance(content, Image) for item in items for content in item.content))
            return super().encode(items)

    counts: list[int] = []
    embed_all(tasks, Counting(), VectorStore(None, {}), lambda _done, _total: None)
    assert sum(counts) > 10 * PICTURES
    assert max(counts) <= PICTURES + 16  # the last item is a whole one, with its frames


def test_a_constant_model_is_never_right_by_luck(tasks: list[EvalTask]) -> None:
    """Chance level would be a credit: with ties against the model it scores nothing, on every task of the suite."""
    results = measure(tasks, HashEncoder(constant=True))
    assert len(results) == len(tasks) == len(TASK_NAMES)
    for name, result in results.items():
        assert result["hit1"] == 0 < result["chance"], name
        for part in result["parts"].values():
            assert part["slices"][result["headline"]]["mrr"] <= 0.5, name


def test_a_shuffled_candidate_list_does_not_change_a_score(tasks: list[EvalTask]) -> None:
    rng = random.Random(0)

    def shuffled(part: Part) -> Part:
        shared = list(range(part.pool))
        own = list(range(part.pool, len(part.candidates)))
        rng.shuffle(shared)
        order = shared + own
        place = {old: new for new, old in enumerate(order)}
        queries = tuple(replace(q, truths=tuple(sorted(place[t] for t in q.truths))) for q in part.queries)
        return replace(part, queries=queries, candidates=tuple(part.candidates[old] for old in order))

    turned = [replace(task, parts=tuple(shuffled(part) for part in task.parts)) for task in tasks]
    assert measure(turned, HashEncoder()) == measure(tasks, HashEncoder())


def simple_task(*truths: int, name: str = "task", meta: str = "retrieval") -> EvalTask:
    """Queries that equal candidate 0, 1, ... while the right one is as given."""
    candidates = tuple(EmbedInput.of(f"candidate {i}") for i in range(4))
    queries = tuple(
        Query(candidates[i], (truth,), ("test", "even" if i % 2 == 0 else "odd")) for i, truth in enumerate(truths)
    )
    return EvalTask(name, meta, (Part("all", queries, candidates),), "test")


def test_numbers_of_a_task() -> None:
    result = measure([simple_task(0, 1, 3)], HashEncoder())["task"]
    assert result["hit1"] == pytest.approx(2 / 3, abs=1e-6)
    assert result["chance"] == 0.25
    assert result["queries"] == 3
    assert result["slices"]["odd"]["hit1"] == 1
    assert result["slices"]["even"] == result["parts"]["all"]["slices"]["even"]
    assert result["interval"][0] <= result["hit1"] <= result["interval"][1]


def test_a_task_is_the_mean_over_its_parts_whatever_their_size() -> None:
    right, wrong = simple_task(0, 1, 2), simple_task(1)
    task = replace(right, parts=(right.parts[0], replace(wrong.parts[0], name="other")))
    result = measure([task], HashEncoder())["task"]
    assert result["hit1"] == 0.5
    assert result["queries"] == 4


def test_more_metrics_count_all_right_candidates() -> None:
    task = simple_task(0, 1)
    several = replace(task.parts[0].queries[0], truths=(0, 1, 2, 3))
    task = replace(task, parts=(replace(task.parts[0], queries=(several,)),))
    values = measure([task], HashEncoder())["task"]["slices"]["test"]
    assert (values["map"], values["recall10"], values["r_precision"], values["chance"]) == (1, 1, 1, 1)


def test_one_thing_asked_in_several_ways() -> None:
    task = simple_task(0, 2)
    queries = (
        replace(task.parts[0].queries[0], instance="seen"),
        replace(task.parts[0].queries[1], instance="other", truths=(1,)),
    )
    worse = tuple(replace(query, truths=((place + 1) % 4,)) for place, query in enumerate(queries))
    task = replace(
        task, parts=(replace(task.parts[0], queries=queries), replace(task.parts[0], name="b", queries=worse))
    )
    found = measure([task], HashEncoder())["task"]["instances"]
    assert (found["ways"], found["count"], found["all_hit1"]) == (2, 2, 0)
    assert found["mean_rank_variance"] > 0


def test_ways_that_rank_alike_do_not_vary() -> None:
    task = simple_task(0, 1)
    queries = tuple(replace(query, instance=str(place)) for place, query in enumerate(task.parts[0].queries))
    part = replace(task.parts[0], queries=queries)
    task = replace(task, parts=(part, replace(part, name="again")))
    found = measure([task], HashEncoder())["task"]["instances"]
    assert found == {"ways": 2, "count": 2, "mean_rank_variance": 0, "all_hit1": 1}


def test_queries_with_candidates_of_their_own_say_how_many(tasks: list[EvalTask]) -> None:
    part = measure([task for task in tasks if task.name == "nlvr-object"], HashEncoder())["nlvr-object"]["parts"]["all"]
    assert (part["pool"], part["candidates"]) == (0, [3, 3])


def test_both_means() -> None:
    tasks = [simple_task(0, name="a"), simple_task(1, name="b"), simple_task(0, name="c", meta="VQA")]
    assert overall(measure(tasks, HashEncoder())) == {
        "tasks": 3,
        "mean_over_tasks": pytest.approx(2 / 3, abs=1e-6),
        "mean_over_meta_tasks": 0.75,
        "meta_tasks": {"VQA": 1.0, "retrieval": 0.5},
    }


def test_cut_vectors_are_normalised_again() -> None:
    result = measure([simple_task(0, 1, 2, 3)], HashEncoder(), dimensions=3)["task"]
    assert result["hit1"] == 1


def test_pixels_do_picture_tasks_only(tasks: list[EvalTask]) -> None:
    assert [task.name for task in supported(tasks, PixelEncoder())] == ["emoji-i2i", "robust-emoji-i2i"]
    with pytest.raises(EvaluationError, match="pixels can do none of these tasks: nlvr"):
        supported([task for task in tasks if task.name == "nlvr"], PixelEncoder())
