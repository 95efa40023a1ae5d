"""Gemma 3: one square of fixed size, 256 visual tokens that attend to each other in both directions."""

from collections.abc import Mapping
from typing import Any

from mllm_embed.families.base import Family, Template, VllmSupport, by_name, plain
from mllm_embed.families.pictures import FixedSize


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> FixedSize:
    if processor.get("do_pan_and_scan"):
        raise ValueError("do_pan_and_scan must be off: crops are not supported")
    side, tokens = int(processor["size"]["height"]), int(config.get("mm_tokens_per_image", 256))
    return FixedSize(round(side / tokens**0.5), side, before=("<start_of_image>",), after=("<end_of_image>",))


FAMILY = Family(
    name="gemma3",
    image_slot=("<start_of_image>",),
    image_token="<start_of_image>",
    visual_token="<image_soft_token>",
    image_margin="\n\n",
    templates=by_name(
        plain("<eos>"),
        Template("chat", 1, "<start_of_turn>user\n{instruction}\n{content}<end_of_turn>\n<start_of_turn>model\n"),
    ),
    default_template="plain",
    read_pictures=_read,
    type_ids="token_type_ids",
    attention_modes=("image-bidirectional",),
    text_defaults={
        "gemma3_text": {
            "hidden_size": 2304,
            "max_position_embeddings": 131_072,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
        }
    },
    vllm=VllmSupport("its pictures need attention in both directions, which vLLM has on some GPUs only"),
)
