"""The backbone families, one file each: a file here that holds a `FAMILY` is known to every part of the house."""

from __future__ import annotations

import importlib
import pkgutil

from mllm_embed.errors import UnknownFamily
from mllm_embed.families.base import Family, Template


def _families() -> dict[str, Family]:
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    families: list[Family] = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    return {family.name: family for family in families}


FAMILIES: dict[str, Family] = _families()
"""The families by name, which is also their `model_type` in `config.json`."""


def get_family(name: str) -> Family:
    """Return the family called `name`.

    Raises:
        UnknownFamily: there is none.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        raise UnknownFamily(f"family must be one of {', '.join(sorted(FAMILIES))}, but is {name!r}") from None


def detect_family(model_type: str) -> Family:
    """Return the family of a Hugging Face `model_type`.

    Raises:
        UnknownFamily: no family has it.
    """
    try:
        return FAMILIES[model_type]
    except KeyError:
        known = ", ".join(sorted(FAMILIES))
        raise UnknownFamily(f"model_type must be one of {known}, but the model's config says {model_type!r}") from None


__all__ = ["FAMILIES", "Family", "Template", "detect_family", "get_family"]
