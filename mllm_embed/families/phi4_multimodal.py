"""Phi-4-multimodal in transformers' own format: a grid of square crops without its padding, and an overview, SigLIP."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mllm_embed.families.base import PLAIN, Family, Template, VllmSupport, by_name
from mllm_embed.families.pictures import PictureRule, Runs, Size, nearest_grid


@dataclass(frozen=True, slots=True)
class Crops(PictureRule):
    """Phi-4: as many crops as cover the picture, two by two patches a token, a token behind each row, an overview.

    Attributes:
        factor: pixels along one side of a visual token.
        side: pixels along one side of a crop.
        most: most crops of a picture; a larger one is shrunk into the grid nearest to its aspect.
    """

    factor: int
    side: int
    most: int

    MAX_ASPECT: ClassVar[int] = 44
    """The processor refuses pictures that would be less than ten pixels wide beside a crop's 448."""

    @property
    def limits(self) -> tuple[int, int]:
        """The area of a crop, and of the largest grid."""
        return self.side**2, self.most * self.side**2

    def expand(self, sizes: Sequence[Size]) -> list[Runs]:
        """Return the visual tokens of each picture: its crops', one between, the overview's."""
        overview = self.side // self.factor
        return [((None, self._crops(*size) + 1 + overview * (overview + 1)),) for size in sizes]

    def _crops(self, width: int, height: int) -> int:
        """Count the tokens of the crops without the padding around the picture, one more for each row."""
        columns, rows = math.ceil(width / self.side), math.ceil(height / self.side)
        if columns * rows > self.most:
            columns, rows = nearest_grid(width, height, side=self.side, fewest=1, most=self.most)
        wide, high = self.side * columns, self.side * rows
        by_width, by_height = wide / width, high / height
        across, down = (wide, int(height * by_width)) if by_width < by_height else (int(width * by_height), high)
        return self._tokens(high, down) * (self._tokens(wide, across) + 1)

    def _tokens(self, whole: int, kept: int) -> int:
        """Count the tokens along a side: patches that hold nothing but padding are left out."""
        patch = self.factor // 2
        return math.ceil((whole // patch - (whole - kept) // patch) / 2)


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> Crops:
    side, patch = int(processor.get("size", {}).get("height", 448)), int(processor.get("patch_size", 14))
    for key, own, expected in (("size", side, 448), ("patch_size", patch, 14), ("crop_size", _crop_size(config), side)):
        if own != expected:  # the processor counts with these numbers, whatever its settings say
            raise ValueError(f"{key} must be {expected}, but is {own}")
    return Crops(2 * patch, side, int(processor.get("dynamic_hd", 36)))


def _crop_size(config: Mapping[str, Any]) -> int:
    return int((config.get("vision_config") or {}).get("crop_size", 448))


_PICTURES = "model.embed_tokens_extend.image_embed"

FAMILY = Family(
    name="phi4_multimodal",
    image_slot=("<|image|>",),
    image_token="<|image|>",
    templates=by_name(
        PLAIN,
        Template("chat", 1, "<|system|>{instruction}<|end|><|user|>{content}<|end|><|assistant|>"),
    ),
    default_template="plain",
    read_pictures=_read,
    lora_targets=("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    tower_targets=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2"),
    tower=f"{_PICTURES}.img_processor",
    projector=_PICTURES,
    language_model="model.layers",
    pixel_inputs=("image_pixel_values", "image_sizes", "image_attention_mask"),
    old_names={},
    text_defaults={
        "phi4_multimodal": {
            "hidden_size": 3072,
            "max_position_embeddings": 131_072,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        }
    },
    vllm=VllmSupport("it reads this format of Phi-4-multimodal up to version 0.12.0 only"),
)
