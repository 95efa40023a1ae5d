"""Gemma 3: one square of fixed size, 256 visual tokens that attend to each other in both directions."""

from collections.abc import Mapping
from typing import Any

from mllm_embed.families.base import LLAMA_TARGETS, Family, Template, VllmSupport
from mllm_embed.families.pictures import FixedSize


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> FixedSize:
    if processor.get("do_pan_and_scan"):
        raise ValueError("do_pan_and_scan must be off: crops are not supported")
    side, tokens = int(processor["size"]["height"]), int(config.get("mm_tokens_per_image", 256))
    return FixedSize(round(side / tokens**0.5), side, before=("<start_of_image>",), after=("<end_of_image>",))


FAMILY = Family(
    name="gemma3",
    model_type="gemma3",
    image_slot=("<start_of_image>",),
    image_token="<start_of_image>",
    visual_token="<image_soft_token>",
    image_margin="\n\n",
    templates={
        "plain": Template("plain", 1, "{instruction}\n{content}<eos>"),
        "chat": Template(
            "chat", 1, "<start_of_turn>user\n{instruction}\n{content}<end_of_turn>\n<start_of_turn>model\n"
        ),
    },
    default_template="plain",
    lora_targets=LLAMA_TARGETS,
    tower_targets=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    tower="model.vision_tower",
    projector="model.multi_modal_projector",
    language_model="model.language_model",
    read_pictures=_read,
    pixel_inputs=("pixel_values",),
    type_ids="token_type_ids",
    position_modes=("1d",),
    attention_modes=("image-bidirectional",),
    vllm=VllmSupport("its pictures need attention in both directions, which vLLM has on some GPUs only"),
)
