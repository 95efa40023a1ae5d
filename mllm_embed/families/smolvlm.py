"""SmolVLM: Idefics 3's pictures before a small Llama-shaped language model."""

from mllm_embed.families.base import LLAMA_TARGETS, Family, Template, VllmSupport
from mllm_embed.families.idefics3 import read_split_rows

FAMILY = Family(
    name="smolvlm",
    model_type="smolvlm",
    image_slot=("<image>",),
    image_token="<image>",
    templates={
        "plain": Template("plain", 1, "{instruction}\n{content}<end_of_utterance>"),
        "chat": Template("chat", 1, "<|im_start|>User:{instruction}\n{content}<end_of_utterance>\nAssistant:"),
    },
    default_template="plain",
    lora_targets=LLAMA_TARGETS,
    tower_targets=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    tower="model.vision_model",
    projector="model.connector",
    language_model="model.text_model",
    read_pictures=read_split_rows,
    pixel_inputs=("pixel_values", "pixel_attention_mask"),
    images_by_prompt=True,
    type_ids=None,
    position_modes=("1d",),
    vllm=VllmSupport("its processor there needs the package num2words, which is not among the tested ones"),
)
