from __future__ import annotations

import pytest

from mllm_embed.errors import InvalidInput
from mllm_embed.tasks import DEFAULT, TASKS, get_task

pytestmark = pytest.mark.fast


def test_names_lead_to_their_tasks() -> None:
    for name, task in TASKS.items():
        assert get_task(name) is task
        assert task.name == name


def test_roles_have_their_own_instructions() -> None:
    task = get_task("text-to-image")
    assert task.instruction("query") == task.query
    assert task.instruction("target") == task.target
    assert task.query != task.target


def test_queries_differ_between_tasks_and_targets_are_shared() -> None:
    assert len({task.query for task in TASKS.values()}) == len(TASKS)
    assert {task.target for task in TASKS.values()} == {get_task(DEFAULT).target}


@pytest.mark.parametrize("name", ["", "Default", "translation"])
def test_an_unknown_task_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"task must be one of .*classification.*, but is {name!r}"):
        get_task(name)
