"""Qwen3-VL: dynamic resolution, 16-pixel patches merged 2 x 2, interleaved M-RoPE, DeepStack features."""

from mllm_embed.families.base import CHAT, LLAMA_TARGETS, PLAIN, Family

FAMILY = Family(
    name="qwen3_vl",
    model_type="qwen3_vl",
    image_slot=("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
    image_token="<|image_pad|>",
    templates={"chat": CHAT, "plain": PLAIN},
    default_template="chat",
    lora_targets=LLAMA_TARGETS,
    tower_targets=("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2", "linear_fc1", "linear_fc2"),
    tower="model.visual",
    language_model="model.language_model",
    position_modes=("mrope", "1d"),
    attention_modes=("causal", "bidirectional"),
)
