"""Outputs beside the dense vector: the fields that ask for them, and how they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm_embed.types import MAX_WORDS, Embedding, Outputs
from mllm_embed_serving import fields
from mllm_embed_serving.errors import InvalidParameter

OUTPUTS = ("dense", "multivector", "lexical")
"""What `outputs` may name."""
DEFAULT_WORDS = 32
"""Words of a lexical output, unless `lexical_top_k` says how many."""


def read_outputs(body: dict[str, Any]) -> tuple[Outputs, bool]:
    """Read `outputs` and `lexical_top_k`.

    Returns:
        what is wanted besides the dense vector, and whether that is wanted.

    Raises:
        InvalidParameter: no array of names, an unknown one, or too many words.
    """
    names = _names(body.get("outputs"))
    most = fields.positive_integer(body.get("lexical_top_k"), "lexical_top_k")
    if most is not None and "lexical" not in names:
        raise InvalidParameter("needs 'lexical' among the outputs", param="lexical_top_k")
    if most is not None and most > MAX_WORDS:
        raise InvalidParameter(f"must be at most {MAX_WORDS}, but is {most}", param="lexical_top_k")
    words = (most or DEFAULT_WORDS) if "lexical" in names else 0
    return Outputs(multivector="multivector" in names, lexical=words), "dense" in names


def written_outputs(embedding: Embedding, write: Callable[[NDArray[np.float32]], Any]) -> dict[str, Any]:
    """Return the fields of the outputs that an item has besides its dense vector.

    Args:
        embedding: of the item.
        write: writes one vector.
    """
    written: dict[str, Any] = {}
    if embedding.multivector is not None:
        written["multivector"] = [write(vector) for vector in embedding.multivector]
    if embedding.lexical is not None:
        written["lexical"] = dict(embedding.lexical)
    if embedding.parts is not None:
        written["pages"] = [write(vector) for vector in embedding.parts]
    return written


def _names(value: Any) -> set[str]:
    if value is None:
        return {"dense"}
    if not isinstance(value, list):
        raise fields.wrong_type("an array", value, "outputs")
    if not value:
        raise InvalidParameter("must not be an empty array", param="outputs")
    return {_name(name, f"outputs[{index}]") for index, name in enumerate(value)}


def _name(value: Any, path: str) -> str:
    if value is None:
        raise fields.wrong_type("a string", value, path)
    return fields.choice(value, path, {name: name for name in OUTPUTS}, "")
