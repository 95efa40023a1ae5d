from __future__ import annotations

import inspect

import pytest

from mllm_embed import errors
from mllm_embed.errors import InputError, MllmEmbedError

pytestmark = pytest.mark.fast

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value)]


def drawn_tree() -> dict[str, str]:
    """Read the tree that the module's docstring draws: class -> base."""
    assert errors.__doc__ is not None
    bases: dict[str, str] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        name = line.lstrip(" │├└─").partition(" ")[0]
        if not hasattr(errors, name):
            continue
        depth = (len(line) - len(line.lstrip(" │├└─"))) // 4 - 1
        path = [*path[:depth], name]
        bases[name] = path[-2] if depth else "Exception"
    return bases


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {cls.__name__: cls.__base__.__name__ for cls in CLASSES if cls.__base__ is not None}
    assert len(real) > 10
    assert drawn_tree() == real


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if issubclass(cls, InputError)])
def test_input_errors_say_which_item(cls: type[InputError]) -> None:
    error = cls("the message")
    assert (str(error), error.index) == ("the message", None)
    assert error.at(3) is error
    assert str(error) == "input[3]: the message"
    assert error.message == "the message"


def test_the_first_index_stays() -> None:
    assert InputError("m", index=1).at(5).index == 1
    assert InputError("m", index=0).at(5).index == 0


def test_everything_is_caught_by_the_base() -> None:
    assert all(issubclass(cls, MllmEmbedError) for cls in CLASSES)
