"""LLaVA-OneVision: SigLIP patches, an overview and nine crops' worth of tokens at most; several pictures: overviews."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mllm_embed.families import llava
from mllm_embed.families.base import CHAT, PLAIN, Template, VllmSupport, by_name
from mllm_embed.families.llava_next import VLM2VEC, AnyResolution, read_grids

_ASPECT, _MOST_CROPS = "anyres_max_9", 9
"""The one way of reading pictures that checkpoints have, and that vLLM reads them in."""


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> AnyResolution:
    for key, expected in (("vision_aspect_ratio", _ASPECT), ("vision_feature_select_strategy", "full")):
        if config.get(key, expected) != expected:
            raise ValueError(f"{key} must be {expected!r}")
    side, patch = int(config["vision_config"]["image_size"]), int(config["vision_config"]["patch_size"])
    return AnyResolution(patch, side, read_grids(processor), most_crops=_MOST_CROPS, overview_only=True)


_SUMMARY = "\nSummary above {kind} in one word:\n<|im_end|><|im_start|>assistant\n"

UNIME = Template(
    "unime",
    1,
    "<|im_start|>user {images}\n{texts}" + _SUMMARY,
    text_alone="<|im_start|>user \n{texts}" + _SUMMARY,
)
"""UniME's prompt in the model's own chat frame; it knows no instruction."""

FAMILY = replace(
    llava.FAMILY,
    name="llava_onevision",
    templates=by_name(CHAT, PLAIN, VLM2VEC, UNIME),
    read_pictures=_read,
    pixel_inputs=("pixel_values", "image_sizes", "batch_num_images"),
    images_by_prompt=True,
    vllm=VllmSupport(lora=False, max_images=1, tower_weights=llava.TOWER_WEIGHTS),
)
