"""The one check of every failing answer of the API."""

from __future__ import annotations

from typing import Any


def check_error(
    body: Any, status: int, *, expected: int, code: str, param: str | None = None, says: str | tuple[str, ...] = ()
) -> None:
    """Assert that an answer is the error expected, in OpenAI's shape: four keys, a string code, one clear sentence."""
    assert status == expected, body
    assert isinstance(body, dict)
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["type"], str)
    assert error["code"] == code, error
    assert error["param"] == param, error
    message = error["message"]
    assert 0 < len(message) < 600
    assert "\n" not in message
    for internal in ("Traceback", "object at 0x", "mllm_embed.", "pydantic"):
        assert internal not in message
    for part in (says,) if isinstance(says, str) else says:
        assert part in message, message
