"""The backbone families, one file each: add a file here and a row below, and every part of the house knows it."""

from __future__ import annotations

from mllm_embed.errors import UnknownFamily
from mllm_embed.families import (
    gemma3,
    idefics3,
    internvl,
    llava,
    llava_next,
    llava_onevision,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_vl,
    smolvlm,
)
from mllm_embed.families.base import Family, Template

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        qwen2_vl.FAMILY,
        qwen2_5_vl.FAMILY,
        qwen3_vl.FAMILY,
        llava.FAMILY,
        llava_next.FAMILY,
        llava_onevision.FAMILY,
        internvl.FAMILY,
        idefics3.FAMILY,
        smolvlm.FAMILY,
        gemma3.FAMILY,
    )
}


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
    for family in FAMILIES.values():
        if family.model_type == model_type:
            return family
    known = ", ".join(sorted(family.model_type for family in FAMILIES.values()))
    raise UnknownFamily(f"model_type must be one of {known}, but the model's config says {model_type!r}")


__all__ = ["FAMILIES", "Family", "Template", "detect_family", "get_family"]
