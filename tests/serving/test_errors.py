from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

import mllm_embed.errors
import mllm_embed_serving
from mllm_embed.errors import (
    BackendError,
    BackendUnavailable,
    InputTooLong,
    InvalidDimensions,
    InvalidInput,
    Overloaded,
)
from mllm_embed_serving import errors
from mllm_embed_serving.errors import ANSWERS, FIXED_TEXTS, error_body, find_answer
from tests.error_shape import check_error

pytestmark = pytest.mark.fast


def classes(module: ModuleType) -> Iterator[type[BaseException]]:
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module.__name__:
            yield value


@pytest.mark.parametrize("module", [mllm_embed.errors, errors], ids=["library", "requests"])
def test_every_error_class_is_mapped_by_itself(module: ModuleType) -> None:
    found = list(classes(module))
    assert len(found) > 5
    unmapped = [error.__name__ for error in found if error not in ANSWERS and error.__subclasses__() == []]
    assert unmapped == []


def test_every_error_class_of_serving_is_in_the_table_or_cannot_reach_a_request() -> None:
    startup_only = {"InvalidSettings", "PortInUse"}
    defined = set()
    for info in pkgutil.walk_packages(mllm_embed_serving.__path__, "mllm_embed_serving."):
        defined |= {error.__name__ for error in classes(importlib.import_module(info.name)) if error not in ANSWERS}
    assert defined == startup_only


def test_client_faults_are_4xx_and_ours_are_5xx() -> None:
    for error, answer in ANSWERS.items():
        ours = issubclass(error, (mllm_embed.errors.BackendError, mllm_embed.errors.ModelError)) or error is Exception
        ours = ours and error is not Overloaded
        assert (answer.status >= 500) == ours, error
        assert (answer.code in FIXED_TEXTS) == ours, error
        assert answer.code
        assert answer.code.islower()


def test_an_unmapped_subclass_takes_the_answer_of_its_ancestor() -> None:
    class Special(InputTooLong):
        pass

    assert find_answer(Special("x")) == ANSWERS[InputTooLong]
    assert find_answer(OSError("x")) == ANSWERS[Exception]


def test_the_item_is_named_as_the_caller_wrote_it() -> None:
    error = InvalidInput("text must not be empty", index=1)
    body = error_body(error, "r", ["input[0]", "messages[1]"].__getitem__)
    check_error(body, 400, expected=400, code="invalid_input", param="messages[1]", says="messages[1]: text must")
    check_error(
        error_body(error, "r"), 400, expected=400, code="invalid_input", param="input[1]", says="input[1]: text"
    )
    body = error_body(InvalidDimensions("too many"), "r")
    check_error(body, 400, expected=400, code="invalid_dimensions", param="dimensions", says="dimensions: too many")


@pytest.mark.parametrize(
    "error", [BackendError("at /srv/secret"), BackendUnavailable("/srv/secret"), KeyError("secret")]
)
def test_what_went_wrong_inside_stays_inside(error: Exception) -> None:
    body = error_body(error, "req_7")
    answer = find_answer(error)
    check_error(body, answer.status, expected=answer.status, code=answer.code, says="req_7")
    assert "secret" not in str(body)
