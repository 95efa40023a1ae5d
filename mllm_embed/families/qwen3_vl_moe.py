"""Qwen3-VL with experts: Qwen3-VL's pictures; a token goes through a few of many experts, which LoRA leaves alone."""

from dataclasses import replace

from mllm_embed.families import qwen3_vl
from mllm_embed.families.base import VllmSupport

FAMILY = replace(
    qwen3_vl.FAMILY,
    name="qwen3_vl_moe",
    lora_targets=("q_proj", "k_proj", "v_proj", "o_proj"),
    vllm=VllmSupport("it reads its experts as the hub stores them, and transformers writes them transposed"),
)
