"""LLaVA-OneVision: SigLIP patches, an overview and nine crops' worth of tokens at most; several pictures: overviews."""

from collections.abc import Mapping
from typing import Any

from mllm_embed.families.base import CHAT, LLAMA_TARGETS, PLAIN, UNCOMPARED, Family, VllmSupport
from mllm_embed.families.pictures import AnyResolution

_ASPECT = "anyres_max_"


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> AnyResolution:
    aspect = str(config.get("vision_aspect_ratio", "anyres_max_9"))
    if not aspect.startswith(_ASPECT) or config.get("vision_feature_select_strategy", "full") != "full":
        raise ValueError("vision_aspect_ratio must be anyres_max_N, and vision_feature_select_strategy 'full'")
    vision = config["vision_config"]
    grids = tuple((int(height), int(width)) for height, width in processor["image_grid_pinpoints"])
    side, patch = int(vision["image_size"]), int(vision["patch_size"])
    return AnyResolution(patch, side, grids, most_crops=int(aspect.removeprefix(_ASPECT)), overview_only=True)


FAMILY = Family(
    name="llava_onevision",
    model_type="llava_onevision",
    image_slot=("<image>",),
    image_token="<image>",
    templates={"chat": CHAT, "plain": PLAIN},
    default_template="plain",
    lora_targets=LLAMA_TARGETS,
    tower_targets=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    tower="model.vision_tower",
    projector="model.multi_modal_projector",
    language_model="model.language_model",
    read_pictures=_read,
    pixel_inputs=("pixel_values", "image_sizes", "batch_num_images"),
    images_by_prompt=True,
    type_ids=None,
    position_modes=("1d",),
    vllm=VllmSupport(UNCOMPARED, lora=False, max_images=1),
)
