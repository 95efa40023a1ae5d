"""What a backbone family is: everything that differs between LVLMs, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mllm_embed.families.pictures import PictureRule


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
        text_alone: the control text of inputs without pictures, where it is another.
        bare: the control text of inputs with neither pictures nor an instruction, where it is yet another.
        full_stop: whether an instruction that ends without punctuation gets a full stop.
    """

    name: str
    version: int
    text: str
    image_slot: tuple[str, ...] | None = None
    kinds: tuple[str, str, str] = ("sentence", "image", "image and text")
    text_alone: str | None = None
    bare: str | None = None
    full_stop: bool = False


@dataclass(frozen=True, slots=True)
class VllmSupport:
    """What the pinned vLLM does with a family.

    Attributes:
        refused: why it cannot serve the family, as the end of a sentence; None if it can.
        lora: whether it runs LoRA adapters on the language model.
        tower_lora: whether it runs them on the vision tower and the projector too.
        max_images: most pictures in one prompt whose vectors are the model's own; None is no limit of the family's.
        tower_weights: what the names of the tower's weights must contain for vLLM to find them, if anything.
    """

    refused: str | None = None
    lora: bool = True
    tower_lora: bool = False
    max_images: int | None = None
    tower_weights: str | None = None


LLAMA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of Llama-shaped language models."""

CLIP_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""The linear layers of CLIP- and SigLIP-shaped vision towers."""

LLAMA_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "llama": {"hidden_size": 4096, "max_position_embeddings": 2048, "num_hidden_layers": 32, "num_attention_heads": 32},
    "mistral": {
        "hidden_size": 4096,
        "max_position_embeddings": 131_072,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
"""What the configurations of these language models leave out, by their `model_type`."""


LLAVA_OLD_NAMES: Mapping[str, str] = {
    "language_model.model.": "model.language_model.",
    "vision_tower.vision_model.": "model.vision_tower.",
    "model.vision_tower.vision_model.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}
"""What transformers 4 called the parts of LLaVA-shaped models, and what transformers 5 calls them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One backbone family of LVLMs. What is not given is as in most of them: LLaVA's layout, positions of text.

    Attributes:
        name: the family's name: that of its file, and `model_type` in the Hugging Face configuration.
        image_slot: control tokens that stand for one picture, `image_token` among them.
        image_token: the placeholder that is expanded to the visual tokens.
        templates: prompt formats by name.
        default_template: the format used when nothing else is recorded.
        read_pictures: reads the picture rule from the image processor's settings and the model's configuration;
            raises KeyError, TypeError or ValueError where one is absent or malformed.
        lora_targets: linear layers of the language model that LoRA adapts.
        tower_targets: linear layers of the vision tower and projector that LoRA can adapt.
        tower: submodule (of the whole model) that holds the vision tower.
        projector: submodule that holds the projector; None where it is part of the tower.
        language_model: submodule that holds the language model.
        visual_token: the token that is repeated for a picture, where it is another than `image_token`.
        image_margin: text before and behind every picture.
        pixel_inputs: outputs of the image processor that the model takes.
        images_by_prompt: whether the image processor must know which pictures belong to one prompt.
        cross_attention: whether pictures stand beside the sequence, where layers of cross attention look at them.
        type_ids: the model's input that marks visual tokens, if it has one.
        position_modes: position ids that the model can be run with, its own first.
        attention_modes: attention masks that it can be run with, its own first.
        old_names: beginnings of the names that weights of adapters had under transformers 4, and what they are now; the
            first that fits counts.
        text_defaults: what `config.json` leaves out where it equals the architecture's default, by the language
            model's `model_type`.
        vllm: what vLLM does with it.
    """

    name: str
    image_slot: tuple[str, ...]
    image_token: str
    templates: Mapping[str, Template]
    default_template: str
    read_pictures: Callable[[Mapping[str, Any], Mapping[str, Any]], PictureRule]
    lora_targets: tuple[str, ...] = LLAMA_TARGETS
    tower_targets: tuple[str, ...] = CLIP_TARGETS
    tower: str = "model.vision_tower"
    projector: str | None = "model.multi_modal_projector"
    language_model: str = "model.language_model"
    visual_token: str | None = None
    image_margin: str = ""
    pixel_inputs: tuple[str, ...] = ("pixel_values",)
    images_by_prompt: bool = False
    cross_attention: bool = False
    type_ids: str | None = None
    position_modes: tuple[str, ...] = ("1d",)
    attention_modes: tuple[str, ...] = ("causal",)
    old_names: Mapping[str, str] = field(default_factory=lambda: LLAVA_OLD_NAMES)
    text_defaults: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: LLAMA_DEFAULTS)
    vllm: VllmSupport = VllmSupport()

    def new_name(self, weight: str) -> str:
        """Return the name under transformers 5 of a weight that transformers 4 may have named."""
        old = next((start for start in self.old_names if weight.startswith(start)), "")
        return self.old_names.get(old, old) + weight.removeprefix(old)

    def text_config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the language model's part of a configuration, with the architecture's defaults filled in."""
        text = config.get("text_config") or config
        if not isinstance(text, Mapping):
            return {}
        return {**self.text_defaults.get(str(text.get("model_type")), {}), **text}


def by_name(*templates: Template) -> dict[str, Template]:
    """Return templates by their names."""
    return {template.name: template for template in templates}


CHAT = Template(
    "chat",
    1,
    "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n",
)
"""ChatML with the instruction as system message, as Qwen3-VL-Embedding and GME use it."""


def plain(closing: str) -> Template:
    """Return the format without a chat frame, the shortest prompt: the vector is read at the closing token."""
    return Template("plain", 1, "{instruction}\n{content}" + closing)


PLAIN = plain("<|endoftext|>")
"""For language models that were pre-trained with this token behind every document, Qwen's among them."""

USER_TURN = Template("user-turn", 1, "<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n")
"""ChatML up to the assistant's turn, without system message: what a dialogue is generated from."""

VLM2VEC_QWEN = Template("vlm2vec", 1, "{images} {instruction} {texts}", image_slot=("<|image_pad|>",))
"""VLM2Vec on Qwen2-VL: no chat frame, pictures first, and no marks around them, hence 1-D positions."""
