"""SmolVLM: Idefics 3's pictures before a small Llama-shaped language model."""

from dataclasses import replace

from mllm_embed.families import idefics3
from mllm_embed.families.base import Template, by_name, plain

FAMILY = replace(
    idefics3.FAMILY,
    name="smolvlm",
    templates=by_name(
        plain("<end_of_utterance>"),
        Template("chat", 1, "<|im_start|>User:{instruction}\n{content}<end_of_utterance>\nAssistant:"),
    ),
)
