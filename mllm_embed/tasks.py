"""Instructions by role: what to tell the model about a query and about a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mllm_embed.errors import InvalidInput

Role = Literal["query", "target"]


@dataclass(frozen=True, slots=True)
class Task:
    """A named pair of instructions; the same picture under two instructions gives two vectors."""

    name: str
    query: str
    target: str

    def instruction(self, role: Role) -> str:
        """Return the instruction for `role`."""
        return self.query if role == "query" else self.target


DEFAULT = "default"
_REPRESENT = "Represent the user's input."
"""Default instruction of Qwen3-VL-Embedding, also the target side of every built-in task."""

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(DEFAULT, _REPRESENT, _REPRESENT),
        Task("text-to-image", "Find the picture that shows this.", _REPRESENT),
        Task("image-to-text", "Find the text that describes this picture.", _REPRESENT),
        Task("image-to-image", "Find another picture of the same thing.", _REPRESENT),
        Task("composed", "Find this picture with the change applied.", _REPRESENT),
        Task("classification", "Find the class of this picture.", _REPRESENT),
        Task("question", "Answer the question about the picture.", _REPRESENT),
        Task("grounding", "Find the part of the scene that is named.", _REPRESENT),
        Task("document", "Find the document page that answers this.", _REPRESENT),
        Task("text-to-text", "Find the text that means the same.", _REPRESENT),
    )
}
"""The built-in tasks, on which `mllm-embed-mini` is trained; an own instruction may be given instead of a task."""


def get_task(name: str) -> Task:
    """Return the built-in task `name`.

    Raises:
        InvalidInput: there is no such task.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise InvalidInput(f"task must be one of {', '.join(sorted(TASKS))}, but is {name!r}") from None
