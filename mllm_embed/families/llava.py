"""LLaVA 1.5: every picture becomes one square crop of fixed size, CLIP patches through a two-layer projector."""

from collections.abc import Mapping
from typing import Any

from mllm_embed.families.base import LLAMA_TARGETS, UNCOMPARED, Family, Template, VllmSupport
from mllm_embed.families.pictures import FixedSize


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> FixedSize:
    if config.get("vision_feature_select_strategy", "default") != "default":
        raise ValueError("vision_feature_select_strategy must be 'default' (the class token is dropped)")
    return FixedSize(int(config["vision_config"]["patch_size"]), int(processor["crop_size"]["height"]))


FAMILY = Family(
    name="llava",
    model_type="llava",
    image_slot=("<image>",),
    image_token="<image>",
    templates={
        "plain": Template("plain", 1, "{instruction}\n{content}</s>"),
        "chat": Template("chat", 1, "USER: {instruction}\n{content} ASSISTANT:"),
    },
    default_template="plain",
    lora_targets=LLAMA_TARGETS,
    tower_targets=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    tower="model.vision_tower",
    projector="model.multi_modal_projector",
    language_model="model.language_model",
    read_pictures=_read,
    pixel_inputs=("pixel_values",),
    type_ids=None,
    position_modes=("1d",),
    vllm=VllmSupport(UNCOMPARED),
)
