"""What a backbone family is: everything that differs between LVLMs, as values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Template:
    """How content becomes a prompt.

    `text` is control text with the two markers `{instruction}` and `{content}`. Control tokens are honoured in it,
    and only in it: what fills the markers is tokenised as plain text.
    """

    name: str
    version: int
    text: str


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


CHAT = Template(
    "chat",
    1,
    "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n",
)
"""ChatML with the instruction as system message, as Qwen3-VL-Embedding and GME use it."""

PLAIN = Template("plain", 1, "{instruction}\n{content}<|endoftext|>")
"""No chat frame, as VLM2Vec: the shortest prompt; the vector is read at the closing token."""


@dataclass(frozen=True, slots=True)
class PixelRule:
    """How the Qwen-VL image processors choose a picture's size (`smart_resize`), hence its visual-token count.

    Attributes:
        factor: pixels along one side of a visual token (patch size x merge size); sides are multiples of it.
        min_pixels: smallest area after resizing.
        max_pixels: largest area after resizing.
    """

    factor: int
    min_pixels: int
    max_pixels: int

    MAX_ASPECT: ClassVar[int] = 200
    """The image processors refuse pictures that are longer than this multiple of their short side."""

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after resizing, both multiples of `factor`."""
        w, h = (round(side / self.factor) * self.factor for side in (width, height))  # 0 for a sliver: enlarged below
        if w * h > self.max_pixels:
            scale = math.sqrt(width * height / self.max_pixels)
            w, h = (max(self.factor, self._floor(side / scale)) for side in (width, height))
        elif w * h < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (width * height))
            w, h = (math.ceil(side * scale / self.factor) * self.factor for side in (width, height))
        return w, h

    def visual_tokens(self, width: int, height: int) -> int:
        """Return how many visual tokens a picture of this size becomes."""
        w, h = self.size(width, height)
        return (w // self.factor) * (h // self.factor)

    def _floor(self, side: float) -> int:
        return math.floor(side / self.factor) * self.factor


USER_TURN = Template("user-turn", 1, "<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n")
"""ChatML up to the assistant's turn, without system message: what a dialogue is generated from."""
