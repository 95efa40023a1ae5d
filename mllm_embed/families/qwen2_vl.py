"""Qwen2-VL: dynamic resolution, 14-pixel patches merged 2 x 2, M-RoPE."""

from mllm_embed.families.base import CHAT, PLAIN, VLM2VEC_QWEN, Family, Template, VllmSupport, by_name
from mllm_embed.families.pictures import PixelRule

DSE = Template(
    "dse",
    1,
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n"
    "<|im_start|>assistant\n<|endoftext|>",
)
"""Qwen2-VL's own chat frame with a closing token, as DSE-Qwen2 uses it; it knows no instruction."""

GME = Template(
    "gme",
    1,
    "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{images}{texts}<|im_end|>\n"
    "<|im_start|>assistant\n<|endoftext|>",
)
"""GME: the instruction as system message, pictures before text, read at the closing token."""

RZEN = Template(
    "rzen",
    1,
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "{images}{instruction}{texts}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
)
"""RzenEmbed: GME's frame with a fixed system message; the instruction stands right before the text."""

FAMILY = Family(
    name="qwen2_vl",
    image_slot=("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
    image_token="<|image_pad|>",
    templates=by_name(CHAT, PLAIN, VLM2VEC_QWEN, DSE, GME, RZEN),
    default_template="chat",
    read_pictures=PixelRule.read,
    tower_targets=("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "mlp.0", "mlp.2"),
    tower="model.visual",
    projector=None,
    pixel_inputs=("pixel_values", "image_grid_thw"),
    type_ids="mm_token_type_ids",
    position_modes=("mrope", "1d"),
    attention_modes=("causal", "bidirectional"),
    old_names={
        **{part: part for part in ("model.language_model.", "model.visual.")},
        "model.": "model.language_model.",
        "visual.": "model.visual.",
    },
    vllm=VllmSupport(tower_lora=True),
)
