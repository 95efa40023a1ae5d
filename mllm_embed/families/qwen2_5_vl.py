"""Qwen2.5-VL: dynamic resolution, 14-pixel patches merged 2 x 2, M-RoPE, window attention in most tower layers."""

from mllm_embed.families.base import CHAT, LLAMA_TARGETS, PLAIN, VLM2VEC_QWEN, Family, Template

MOCA = Template("moca", 1, "{images}{instruction} {texts}\n")
"""MoCa: pictures with their marks, then the text of the task."""

FAMILY = Family(
    name="qwen2_5_vl",
    model_type="qwen2_5_vl",
    image_slot=("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
    image_token="<|image_pad|>",
    templates={"chat": CHAT, "plain": PLAIN, "vlm2vec": VLM2VEC_QWEN, "moca": MOCA},
    default_template="chat",
    lora_targets=LLAMA_TARGETS,
    tower_targets=("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.0", "mlp.2"),
    tower="model.visual",
    language_model="model.language_model",
    position_modes=("mrope", "1d"),
    attention_modes=("causal", "bidirectional"),
)
