"""Strict readers of JSON values: each returns a value of one type or raises one sentence with the path of the field."""

from __future__ import annotations

from typing import Any, TypeVar

from mllm_embed_serving.errors import InvalidParameter

Choice = TypeVar("Choice", bound=str)

_KINDS = {
    bool: "a boolean",
    int: "an integer",
    float: "a number with a fraction or exponent",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
_SHOWN_CHARS = 60


def kind(value: Any) -> str:
    """Name the JSON type of a value, with its article."""
    return _KINDS[type(value)]


def shown(value: str) -> str:
    """Quote a caller's string for a message, cut to a harmless length."""
    return repr(value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "…")


def wrong_type(expected: str, value: Any, path: str) -> InvalidParameter:
    """Return the error for a value of a type that `path` does not take."""
    return InvalidParameter(f"must be {expected}, but is {kind(value)}", param=path)


def text(value: Any, path: str, max_chars: int) -> str:
    """Read a string that can be encoded.

    Raises:
        InvalidParameter: another type, more than `max_chars` characters, or a lone surrogate.
    """
    if not isinstance(value, str):
        raise wrong_type("a string", value, path)
    if len(value) > max_chars:
        raise InvalidParameter(f"may have at most {max_chars} characters, but has {len(value)}", param=path)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidParameter(
                f"must be valid Unicode, but holds a lone surrogate at character {error.start}", param=path
            ) from None
    return value


def optional_text(value: Any, path: str, max_chars: int) -> str | None:
    """Read a string or null."""
    return None if value is None else text(value, path, max_chars)


def choice(value: Any, path: str, options: dict[str, Choice], default: str) -> Choice:
    """Read one of the strings in `options` and return what it stands for; null stands for `default`.

    Raises:
        InvalidParameter: another type or another string.
    """
    if value is None:
        value = default
    if not isinstance(value, str):
        raise wrong_type("a string", value, path)
    if value not in options:
        known = ", ".join(map(repr, options))
        raise InvalidParameter(f"must be one of {known}, but is {shown(value)}", param=path)
    return options[value]


def positive_integer(value: Any, path: str) -> int | None:
    """Read an integer of at least 1, or null; 1.0, true and "1" are none.

    Raises:
        InvalidParameter: anything else.
    """
    if value is None:
        return None
    if type(value) is not int:
        raise wrong_type("an integer", value, path)
    if value < 1:
        raise InvalidParameter(f"must be at least 1, but is {value}", param=path)
    return value


def positive_number(value: Any, path: str) -> float | None:
    """Read a finite number greater than 0, or null.

    Raises:
        InvalidParameter: anything else.
    """
    if value is None:
        return None
    if type(value) not in (int, float):
        raise wrong_type("a number", value, path)
    if not 0 < value < 1e9:
        raise InvalidParameter(f"must be greater than 0 and less than 1e9, but is {shown(str(value))}", param=path)
    return float(value)


def boolean(value: Any, path: str, *, default: bool) -> bool:
    """Read true or false; null stands for `default`.

    Raises:
        InvalidParameter: anything else.
    """
    if value is None:
        return default
    if type(value) is not bool:
        raise wrong_type("a boolean", value, path)
    return value


def known_keys(value: dict[str, Any], path: str, allowed: tuple[str, ...]) -> None:
    """Refuse an object that holds other keys than `allowed`; keys with a null value count as absent.

    Raises:
        InvalidParameter: naming the first such key.
    """
    for key, content in value.items():
        if key not in allowed and content is not None:
            raise InvalidParameter(f"may hold {', '.join(allowed)}, but holds {shown(key)}", param=path)
