"""Qwen3.5: Qwen3-VL's pictures; most layers attend linearly (Gated DeltaNet), every fourth one fully."""

from dataclasses import replace

from mllm_embed.families import qwen3_vl
from mllm_embed.families.base import CHAT, LLAMA_TARGETS, PLAIN, Template, VllmSupport, by_name

WEMM = Template(
    "wemm",
    1,
    "<|im_start|>user{images}{instruction} {texts}<|im_end|><embedding>",
    text_alone="<|im_start|>user\n{instruction} {texts}<|im_end|><embedding>",
)
"""WeMM-Embedding: a user's turn, with a line break before text alone, read at a token of its own."""

FAMILY = replace(
    qwen3_vl.FAMILY,
    name="qwen3_5",
    templates=by_name(CHAT, PLAIN, WEMM),
    tower_targets=(
        "attn.qkv",
        "attn.proj",
        "mlp.linear_fc1",
        "mlp.linear_fc2",
        "merger.linear_fc1",
        "merger.linear_fc2",
    ),
    lora_targets=(*LLAMA_TARGETS, "in_proj_qkv", "in_proj_z", "out_proj"),
    attention_modes=("causal",),
    vllm=VllmSupport("on a CPU its linear attention runs in bfloat16 only, too coarse to compare vectors"),
)
