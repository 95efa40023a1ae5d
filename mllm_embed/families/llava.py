"""LLaVA 1.5: every picture becomes one square crop of fixed size, CLIP patches through a two-layer projector."""

from collections.abc import Mapping
from typing import Any

from mllm_embed.families.base import Family, Template, VllmSupport, by_name, plain
from mllm_embed.families.pictures import FixedSize


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> FixedSize:
    check_class_token(config)
    return FixedSize(int(config["vision_config"]["patch_size"]), int(processor["crop_size"]["height"]))


TOWER_WEIGHTS = "vision_tower.vision_model."
"""In the names of checkpoints on the hub; a tower that transformers 5 has made from nothing is saved without it."""


def check_class_token(config: Mapping[str, Any]) -> None:
    """Raise ValueError unless the tower's class token is dropped: otherwise a picture has one visual token more."""
    if config.get("vision_feature_select_strategy", "default") != "default":
        raise ValueError("vision_feature_select_strategy must be 'default' (the class token is dropped)")


FAMILY = Family(
    name="llava",
    image_slot=("<image>",),
    image_token="<image>",
    templates=by_name(
        plain("</s>"),
        Template("chat", 1, "USER: {instruction}\n{content} ASSISTANT:"),
    ),
    default_template="plain",
    read_pictures=_read,
    vllm=VllmSupport(tower_weights=TOWER_WEIGHTS),
)
