"""LLaVA 1.6 (LLaVA-NeXT): an overview and the crops of the picture's best grid (`anyres`), CLIP patches."""

from collections.abc import Mapping
from typing import Any

from mllm_embed.families.base import LLAMA_TARGETS, UNCOMPARED, Family, Template, VllmSupport
from mllm_embed.families.pictures import AnyResolution


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> AnyResolution:
    if config.get("vision_feature_select_strategy", "default") != "default":
        raise ValueError("vision_feature_select_strategy must be 'default' (the class token is dropped)")
    grids = tuple((int(height), int(width)) for height, width in processor["image_grid_pinpoints"])
    return AnyResolution(int(config["vision_config"]["patch_size"]), int(processor["crop_size"]["height"]), grids)


FAMILY = Family(
    name="llava_next",
    model_type="llava_next",
    image_slot=("<image>",),
    image_token="<image>",
    templates={
        "plain": Template("plain", 1, "{instruction}\n{content}</s>"),
        "chat": Template("chat", 1, "[INST] {instruction}\n{content} [/INST]"),
        "vlm2vec": Template("vlm2vec", 1, "{images} {instruction} {texts}"),
        "unime": Template("unime", 1, "[INST] {content}\nSummary above {kind} in one word: [/INST]"),
        "e5-v": Template(
            "e5-v",
            1,
            "<|start_header_id|>user<|end_header_id|>\n\n{images}\n{texts}\nSummary above {kind} in one word: "
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n \n",
        ),
    },
    default_template="plain",
    lora_targets=LLAMA_TARGETS,
    tower_targets=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    tower="model.vision_tower",
    projector="model.multi_modal_projector",
    language_model="model.language_model",
    read_pictures=_read,
    pixel_inputs=("pixel_values", "image_sizes"),
    type_ids=None,
    position_modes=("1d",),
    vllm=VllmSupport(UNCOMPARED),
)
