from pathlib import Path

import pytest

from mllm_embed.evaluation.data_folder import DataFolder
from mllm_embed.evaluation.eval_types import EvalTask
from mllm_embed.evaluation.mini_mmeb import build_tasks
from mllm_embed.evaluation.pools import Selection
from mllm_embed.types import Text
from tests.library.evaluation.shown import Names, answers, asked, part

pytestmark = pytest.mark.fast
TEXT_TASKS = ["emoji-t2t", "figure-t2t", "story-texts"]


def test_some_tasks_hold_texts_only(tasks: dict[str, EvalTask]) -> None:
    def is_text(task: EvalTask) -> bool:
        return all(isinstance(content, Text) for item in task.items() for content in item.content)

    assert [name for name, task in tasks.items() if is_text(task)] == TEXT_TASKS


def test_keywords_ask_for_every_name_that_has_them(tasks: dict[str, EvalTask], names: Names) -> None:
    problem = part(tasks["emoji-t2t"])
    assert answers(problem, names, "new1, sign") == ["creature 1"]
    assert answers(problem, names, "hand, sign") == sorted(
        ["hand", "hand: dark skin tone", "hand: light skin tone"] * 2
    )
    assert asked(problem, "test_comp", names) == ["hand, sign", "woman-cook, sign"]
    assert "train3, sign" in asked(problem, "train", names)


def test_equal_names_are_one_candidate_and_concepts_without_keywords_none(
    tasks: dict[str, EvalTask], names: Names
) -> None:
    problem = part(tasks["emoji-t2t"])
    assert answers(problem, names, "twin, sign") == answers(problem, names, "new0, sign") == ["creature 0"]
    assert len(set(problem.candidates)) == len(problem.candidates) == 22


def test_a_pool_counts_different_names(data_path: Path) -> None:
    (task,) = build_tasks(DataFolder(data_path), Selection(pool_limit=8), ["emoji-t2t"])
    assert task.parts[0].pool == 8  # seven different held-out names, one of them twice, and one train name


def test_captions_ask_for_alt_texts_of_held_out_figures(tasks: dict[str, EvalTask], names: Names) -> None:
    problem = part(tasks["figure-t2t"])
    assert asked(problem, "test", names) == ["Growth of 1 kinds.", "Growth of 3 kinds."]  # figure 2 has no caption
    assert answers(problem, names, "Growth of 3 kinds.") == ["A graph of 3 lines."]
    assert problem.pool == 2


def test_pages_ask_for_their_english_text(tasks: dict[str, EvalTask], names: Names) -> None:
    task = tasks["story-texts"]
    assert [one.name for one in task.parts] == ["de"]  # English is what is looked for
    assert answers(part(task, "de"), names, "Seite 2 der Geschichte.") == ["Page 2 of the tale."]
    assert task.parts[0].pool == len(task.parts[0].queries) == 51
    assert {query.item.instruction for query in task.parts[0].queries} == {"Find the text that means the same."}
