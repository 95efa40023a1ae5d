"""Qwen2-VL: dynamic resolution, 14-pixel patches merged 2 x 2, M-RoPE."""

from mllm_embed.families.base import CHAT, PLAIN, Family

FAMILY = Family(
    name="qwen2_vl",
    model_type="qwen2_vl",
    image_slot=("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
    image_token="<|image_pad|>",
    templates={"chat": CHAT, "plain": PLAIN},
    default_template="chat",
    lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    tower_targets=("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "mlp.0", "mlp.2"),
    tower="model.visual",
    language_model="model.language_model",
)
