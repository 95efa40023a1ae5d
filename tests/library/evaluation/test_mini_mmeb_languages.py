import pytest

from mllm_embed.evaluation.eval_types import EvalTask
from tests.library.evaluation.shown import Names, answers, part

pytestmark = pytest.mark.fast


def test_languages_that_name_nearly_everything_count(tasks: dict[str, EvalTask], names: Names) -> None:
    task = tasks["emoji-names"]
    assert [one.name for one in task.parts] == ["de", "en"]  # Klingon has one name
    german = part(task, "de")
    assert answers(german, names, "creature 1 auf Deutsch") == ["noto:new1"]
    assert answers(german, names, "creature 2") == ["noto:new2", "noto:train5"]
    assert answers(part(task, "en"), names, "creature 2") == ["noto:new2"]
    assert answers(part(task, "en"), names, "creature 0") == ["noto:new0"] * 2 + ["noto:twin"] * 2


def test_every_language_ranks_the_same_pictures_for_the_same_instances(tasks: dict[str, EvalTask]) -> None:
    german, english = tasks["emoji-names"].parts
    assert german.candidates == english.candidates
    assert {query.instance for query in german.queries} == {query.instance for query in english.queries}
    assert all(query.instance for query in german.queries)
    assert all("train" not in query.slices for query in german.queries)


def test_pages_in_languages_with_enough_of_them(tasks: dict[str, EvalTask], names: Names) -> None:
    task = tasks["story-pages"]
    assert [one.name for one in task.parts] == ["de", "en"]  # one page in Swahili is not enough
    assert answers(part(task, "de"), names, "Seite 1 der Geschichte.") == ["s0"]
    assert answers(part(task, "en"), names, "Page 2 of the tale.") == ["s1"]
    assert part(task, "de").pool == 3
