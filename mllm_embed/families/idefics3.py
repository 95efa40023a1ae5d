"""Idefics 3: rows of tiles named by their places, then an overview; SigLIP patches, pixel shuffle, Llama 3."""

from collections.abc import Mapping
from typing import Any

from mllm_embed.families.base import LLAMA_TARGETS, UNCOMPARED, Family, Template, VllmSupport
from mllm_embed.families.pictures import SplitRows


def read_split_rows(processor: Mapping[str, Any], config: Mapping[str, Any]) -> SplitRows:
    """Read the picture rule that Idefics 3 and SmolVLM share; see `Family.read_pictures`."""
    side = int(processor["max_image_size"]["longest_edge"])
    patch, shuffle = int(config["vision_config"]["patch_size"]), int(config.get("scale_factor", 2))
    split = bool(processor.get("do_image_splitting", True))
    return SplitRows(patch * shuffle, side, int(processor["size"]["longest_edge"]), split)


FAMILY = Family(
    name="idefics3",
    model_type="idefics3",
    image_slot=("<image>",),
    image_token="<image>",
    templates={
        "plain": Template("plain", 1, "{instruction}\n{content}<end_of_utterance>"),
        "chat": Template("chat", 1, "User:{instruction}\n{content}<end_of_utterance>\nAssistant:"),
    },
    default_template="plain",
    lora_targets=LLAMA_TARGETS,
    tower_targets=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    tower="model.vision_model",
    projector="model.connector",
    language_model="model.text_model",
    read_pictures=read_split_rows,
    pixel_inputs=("pixel_values", "pixel_attention_mask"),
    images_by_prompt=True,
    type_ids=None,
    position_modes=("1d",),
    vllm=VllmSupport(UNCOMPARED),
)
