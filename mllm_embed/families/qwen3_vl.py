"""Qwen3-VL: dynamic resolution, 16-pixel patches merged 2 x 2, interleaved M-RoPE, DeepStack features."""

from dataclasses import replace

from mllm_embed.families import qwen2_vl
from mllm_embed.families.base import CHAT, PLAIN, Template, by_name

QWEN3_VL_EMBEDDING = Template(
    "qwen3-vl-embedding", 1, CHAT.text.replace("{content}", "{images}{texts}"), full_stop=True
)
"""Qwen3-VL-Embedding: ChatML, pictures before text, and an instruction that ends with punctuation."""

FAMILY = replace(
    qwen2_vl.FAMILY,
    name="qwen3_vl",
    templates=by_name(CHAT, PLAIN, QWEN3_VL_EMBEDDING),
    tower_targets=("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2", "linear_fc1", "linear_fc2"),
)
