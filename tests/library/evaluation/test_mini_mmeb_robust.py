"""Robustness tasks ask some queries of another task again, perturbed, and rank the same candidates."""

import numpy as np
import pytest

from mllm_embed.evaluation.attacked_pictures import ATTACKS, printed_word
from mllm_embed.evaluation.eval_types import ROBUSTNESS, EvalTask, Part, Query
from mllm_embed.evaluation.mini_mmeb_robust import PRINTED
from mllm_embed.evaluation.perturbed_text import PERTURBATIONS
from mllm_embed.media import MediaPolicy, load_sync
from mllm_embed.types import EmbedInput, Image
from tests.library.evaluation.shown import Names, asked, part, shown

pytestmark = pytest.mark.fast

SOURCES = {
    "robust-emoji-t2i": ("emoji-t2i", "noto"),
    "robust-icon-t2i": ("icon-t2i", "all"),
    "robust-figure-t2i": ("figure-t2i", "all"),
    "robust-emoji-i2i": ("emoji-i2i", "noto -> fluent-3d"),
    "robust-emoji-i2t": ("emoji-i2t", "noto"),
    "robust-figure-i2t": ("figure-i2t", "all"),
}
OF_TEXTS = tuple(name for name in SOURCES if name.endswith("t2i"))
OF_PICTURES = tuple(name for name in SOURCES if not name.endswith("t2i"))


def of_slice(problem: Part, name: str) -> list[Query]:
    return [query for query in problem.queries if name in query.slices]


def source(tasks: dict[str, EvalTask], name: str) -> Part:
    task, of_part = SOURCES[name]
    return part(tasks[task], of_part)


def test_they_are_all_and_a_meta_task_of_their_own(tasks: dict[str, EvalTask]) -> None:
    assert tuple(name for name, task in tasks.items() if task.meta_task == ROBUSTNESS) == tuple(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_candidates_and_answers_are_those_of_the_source(tasks: dict[str, EvalTask], name: str) -> None:
    theirs = {query.item: query.truths for query in source(tasks, name).queries}
    for problem in tasks[name].parts:
        assert problem.candidates == source(tasks, name).candidates
        clean, perturbed = of_slice(problem, "clean"), of_slice(problem, "test")
        assert [query.truths for query in clean] == [theirs[query.item] for query in clean]
        assert [query.truths for query in perturbed] == [query.truths for query in clean]
        assert [query.item.instruction for query in perturbed] == [query.item.instruction for query in clean]


@pytest.mark.parametrize("name", SOURCES)
def test_every_part_asks_the_same_queries_none_of_them_a_train_row(tasks: dict[str, EvalTask], name: str) -> None:
    held_out = {query.item for query in of_slice(source(tasks, name), "test")}
    for problem in tasks[name].parts:
        clean = of_slice(problem, "clean")
        assert clean == of_slice(tasks[name].parts[0], "clean")
        assert {query.item for query in clean} <= held_out
        assert [query.instance for query in clean] == [query.instance for query in of_slice(problem, "test")]
        assert len({query.instance for query in clean}) == len(clean) > 0


@pytest.mark.parametrize("name", OF_TEXTS)
def test_texts_are_perturbed_in_every_way(tasks: dict[str, EvalTask], names: Names, name: str) -> None:
    assert [problem.name for problem in tasks[name].parts] == list(PERTURBATIONS)
    for problem in tasks[name].parts:
        clean, perturbed = ([shown(one.item, names) for one in of_slice(problem, kind)] for kind in ("clean", "test"))
        assert perturbed == [PERTURBATIONS[problem.name](text) for text in clean]
        assert not set(clean) & set(perturbed)


def test_texts_that_a_perturbation_leaves_as_they_are_are_not_asked(tasks: dict[str, EvalTask], names: Names) -> None:
    words = part(tasks["robust-emoji-t2i"], "word order")
    assert "hand: dark skin tone" in asked(words, "clean", names)
    assert "ear" not in asked(words, "clean", names)
    assert "ear" in asked(source(tasks, "robust-emoji-t2i"), "test", names)


def picture(item: EmbedInput) -> Image:
    (content,) = item.content
    assert isinstance(content, Image)
    return content


@pytest.mark.parametrize("name", OF_PICTURES)
def test_pictures_are_attacked_in_every_way(tasks: dict[str, EvalTask], name: str) -> None:
    assert [problem.name for problem in tasks[name].parts] == [*ATTACKS, PRINTED]
    for problem in tasks[name].parts:
        for clean, attacked in zip(of_slice(problem, "clean"), of_slice(problem, "test"), strict=True):
            before, after = (load_sync(picture(one.item), MediaPolicy.local()) for one in (clean, attacked))
            assert after.size == before.size
            assert (np.asarray(after) != np.asarray(before)).any()


def test_the_printed_word_is_what_a_wrong_candidate_is_called(tasks: dict[str, EvalTask], names: Names) -> None:
    for name in ("robust-emoji-i2t", "robust-emoji-i2i"):
        problem = part(tasks[name], PRINTED)
        texts = [shown(item, names) for item in source(tasks, "robust-emoji-i2t").candidates]
        for clean, attacked in zip(of_slice(problem, "clean"), of_slice(problem, "test"), strict=True):
            before, after = (load_sync(picture(one.item), MediaPolicy.local()) for one in (clean, attacked))
            fitting = [text for text in texts if printed_word(before, text).tobytes() == after.tobytes()]
            right = {shown(problem.candidates[place], names) for place in clean.truths}
            assert fitting
            assert not set(fitting) <= right
