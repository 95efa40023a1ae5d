"""InternVL in transformers' own format (2.5 and 3, `-hf`): square tiles and an overview, pixel shuffle."""

from collections.abc import Mapping
from typing import Any

from mllm_embed.families.base import CHAT, LLAMA_TARGETS, PLAIN, UNCOMPARED, Family, VllmSupport
from mllm_embed.families.pictures import Tiles


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> Tiles:
    patch = config["vision_config"].get("patch_size", 14)
    patch = int(patch[0] if isinstance(patch, (list, tuple)) else patch)
    tiled = bool(processor.get("crop_to_patches", True))
    return Tiles(
        factor=round(patch / float(config.get("downsample_ratio", 0.5))),
        side=int(processor["size"]["height"]),
        min_tiles=int(processor.get("min_patches", 1)),
        max_tiles=int(processor.get("max_patches", 12)) if tiled else 1,
        before="<img>",
        after="</img>",
    )


FAMILY = Family(
    name="internvl",
    model_type="internvl",
    image_slot=("<IMG_CONTEXT>",),
    image_token="<IMG_CONTEXT>",
    templates={"chat": CHAT, "plain": PLAIN},
    default_template="plain",
    lora_targets=LLAMA_TARGETS,
    tower_targets=("q_proj", "k_proj", "v_proj", "projection_layer", "fc1", "fc2"),
    tower="model.vision_tower",
    projector="model.multi_modal_projector",
    language_model="model.language_model",
    read_pictures=_read,
    pixel_inputs=("pixel_values",),
    type_ids=None,
    position_modes=("1d",),
    vllm=VllmSupport(UNCOMPARED),
)
