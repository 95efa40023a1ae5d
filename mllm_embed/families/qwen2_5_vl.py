"""Qwen2.5-VL: dynamic resolution, 14-pixel patches merged 2 x 2, M-RoPE, window attention in most tower layers."""

from dataclasses import replace

from mllm_embed.families import qwen2_vl
from mllm_embed.families.base import CHAT, PLAIN, VLM2VEC_QWEN, Template, by_name

MOCA = Template("moca", 1, "{images}{instruction} {texts}\n")
"""MoCa: pictures with their marks, then the text of the task."""

FAMILY = replace(
    qwen2_vl.FAMILY,
    name="qwen2_5_vl",
    templates=by_name(CHAT, PLAIN, VLM2VEC_QWEN, MOCA),
    tower_targets=("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.0", "mlp.2"),
)
