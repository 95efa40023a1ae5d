"""Qwen2-VL: dynamic resolution, 14-pixel patches merged 2 x 2, M-RoPE."""

from mllm_embed.families.base import CHAT, LLAMA_TARGETS, PLAIN, VLM2VEC_QWEN, Family, Template

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

FAMILY = Family(
    name="qwen2_vl",
    model_type="qwen2_vl",
    image_slot=("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
    image_token="<|image_pad|>",
    templates={"chat": CHAT, "plain": PLAIN, "vlm2vec": VLM2VEC_QWEN, "dse": DSE, "gme": GME},
    default_template="chat",
    lora_targets=LLAMA_TARGETS,
    tower_targets=("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "mlp.0", "mlp.2"),
    tower="model.visual",
    language_model="model.language_model",
    position_modes=("mrope", "1d"),
    attention_modes=("causal", "bidirectional"),
)
