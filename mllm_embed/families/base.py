"""What a backbone family is: everything that differs between LVLMs, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mllm_embed.families.pictures import PictureRule, PixelRule


@dataclass(frozen=True, slots=True)
class Template:
    """How content becomes a prompt.

    `text` is control text with markers. `{instruction}` and `{content}` are the usual ones; a format that knows one
    order only has `{images}` and `{texts}` in place of `{content}`: there, a space or line break alone between two
    markers is left out where either side of it is empty. `{kind}` is a word for what is embedded. Control tokens are
    honoured in the text, and only in it: what fills the markers is tokenised as plain text.

    Attributes:
        name: what recipes call it.
        version: raised with every change, since a change changes vectors.
        text: the control text.
        image_slot: control tokens that stand for a picture, where they are not the family's.
        kinds: what `{kind}` becomes for text, for pictures, and for both.
    """

    name: str
    version: int
    text: str
    image_slot: tuple[str, ...] | None = None
    kinds: tuple[str, str, str] = ("sentence", "image", "image and text")


UNCOMPARED = "its vectors there have not been compared with those of transformers yet"
"""Why vLLM refuses a family that it knows: `pytest tests/parity --every-family` compares them, then this can go."""


@dataclass(frozen=True, slots=True)
class VllmSupport:
    """What the pinned vLLM does with a family.

    Attributes:
        refused: why it cannot serve the family, as the end of a sentence; None if it can.
        lora: whether it runs LoRA adapters on the language model.
        tower_lora: whether it runs them on the vision tower and the projector too.
        max_images: most pictures in one prompt whose vectors are the model's own; None is no limit of the family's.
    """

    refused: str | None = None
    lora: bool = True
    tower_lora: bool = False
    max_images: int | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One backbone family of LVLMs.

    Attributes:
        name: the family's name, equal to the file's.
        model_type: `model_type` in the Hugging Face configuration.
        image_slot: control tokens that stand for one picture, `image_token` among them.
        image_token: the placeholder that is expanded to the visual tokens.
        templates: prompt formats by name.
        default_template: the format used when nothing else is recorded.
        lora_targets: linear layers of the language model that LoRA adapts.
        tower_targets: linear layers of the vision tower and projector that LoRA can adapt.
        tower: submodule (of the whole model) that holds the vision tower and the projector.
        language_model: submodule that holds the language model.
        projector: submodule that holds the projector, where it is not part of the tower.
        visual_token: the token that is repeated for a picture, where it is another than `image_token`.
        image_margin: text before and behind every picture.
        read_pictures: reads the picture rule from the image processor's settings and the model's configuration;
            raises KeyError, TypeError or ValueError where one is absent or malformed.
        pixel_inputs: outputs of the image processor that the model takes.
        images_by_prompt: whether the image processor must know which pictures belong to one prompt.
        type_ids: the model's input that marks visual tokens, if it has one.
        position_modes: position ids that the model can be run with, its own first.
        attention_modes: attention masks that it can be run with, its own first.
        vllm: what vLLM does with it.
    """

    name: str
    model_type: str
    image_slot: tuple[str, ...]
    image_token: str
    templates: Mapping[str, Template]
    default_template: str
    lora_targets: tuple[str, ...]
    tower_targets: tuple[str, ...]
    tower: str
    language_model: str
    projector: str | None = None
    visual_token: str | None = None
    image_margin: str = ""
    read_pictures: Callable[[Mapping[str, Any], Mapping[str, Any]], PictureRule] = PixelRule.read
    pixel_inputs: tuple[str, ...] = ("pixel_values", "image_grid_thw")
    images_by_prompt: bool = False
    type_ids: str | None = "mm_token_type_ids"
    position_modes: tuple[str, ...] = ("mrope",)
    attention_modes: tuple[str, ...] = ("causal",)
    vllm: VllmSupport = VllmSupport(tower_lora=True)


CHAT = Template(
    "chat",
    1,
    "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n",
)
"""ChatML with the instruction as system message, as Qwen3-VL-Embedding and GME use it."""

PLAIN = Template("plain", 1, "{instruction}\n{content}<|endoftext|>")
"""No chat frame, as VLM2Vec: the shortest prompt; the vector is read at the closing token."""

USER_TURN = Template("user-turn", 1, "<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n")
"""ChatML up to the assistant's turn, without system message: what a dialogue is generated from."""

VLM2VEC_QWEN = Template("vlm2vec", 1, "{images} {instruction} {texts}", image_slot=("<|image_pad|>",))
"""VLM2Vec on Qwen2-VL: no chat frame, pictures first, and no marks around them, hence 1-D positions."""

LLAMA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of Llama-shaped language models."""

TEXT_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gemma3_text": {
        "hidden_size": 2304,
        "max_position_embeddings": 131_072,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
    },
    "llama": {"hidden_size": 4096, "max_position_embeddings": 2048, "num_hidden_layers": 32, "num_attention_heads": 32},
    "mistral": {
        "hidden_size": 4096,
        "max_position_embeddings": 131_072,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
"""What a `config.json` leaves out when it equals the architecture's default, by the language model's `model_type`."""


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the language model's part of a configuration, with the architecture's defaults filled in."""
    text = config.get("text_config") or config
    if not isinstance(text, Mapping):
        return {}
    return {**TEXT_DEFAULTS.get(str(text.get("model_type")), {}), **text}
