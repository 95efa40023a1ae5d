"""Llama 3.2 Vision: up to four square tiles beside the prompt, which cross attention looks at: one token a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mllm_embed.families.base import Family, Template, VllmSupport, by_name
from mllm_embed.families.pictures import PictureRule, Runs, Size


@dataclass(frozen=True, slots=True)
class TilesBeside(PictureRule):
    """Llama 3.2 Vision: every picture is as many square tiles as the largest, and one token in the prompt.

    Attributes:
        factor: pixels along one side of a patch.
        side: pixels along one side of a tile.
        tiles: how many tiles a picture has, blank ones among them.
    """

    factor: int
    side: int
    tiles: int

    @property
    def limits(self) -> tuple[int, int]:
        """The area of a tile, and of all of them."""
        return self.side**2, self.tiles * self.side**2

    @property
    def beside(self) -> int:
        """The patches of all tiles, and a class token in each."""
        return self.tiles * ((self.side // self.factor) ** 2 + 1)

    def expand(self, sizes: Sequence[Size]) -> list[Runs]:
        """Return one token for each picture."""
        return [((None, 1),)] * len(sizes)


def _read(processor: Mapping[str, Any], config: Mapping[str, Any]) -> TilesBeside:
    vision = config["vision_config"]
    side, tiles = int(processor["size"]["height"]), int(processor["max_image_tiles"])
    for key, of_the_processor in (("image_size", side), ("max_num_tiles", tiles)):
        if int(vision[key]) != of_the_processor:
            raise ValueError(f"{key} must be the processor's {of_the_processor}, but is {vision[key]}")
    return TilesBeside(int(vision["patch_size"]), side, tiles)


MME5 = Template(
    "mme5",
    1,
    "{images}<|begin_of_text|>{instruction} {texts}\n",
    text_alone="<|begin_of_text|>{instruction} {texts}\n",
    bare="<|begin_of_text|>{texts}",
)
"""mmE5: pictures before everything else; what has neither a picture nor an instruction ends without a line break."""

FAMILY = Family(
    name="mllama",
    image_slot=("<|image|>",),
    image_token="<|image|>",
    templates=by_name(
        Template("plain", 1, "<|begin_of_text|>{instruction}\n{content}<|eot_id|>"),
        Template(
            "chat",
            1,
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{instruction}\n{content}<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        MME5,
    ),
    default_template="plain",
    read_pictures=_read,
    tower_targets=("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
    tower="model.vision_model",
    pixel_inputs=("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask"),
    images_by_prompt=True,
    cross_attention=True,
    old_names={
        "language_model.model.": "model.language_model.",
        "vision_model.": "model.vision_model.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    },
    text_defaults={
        "mllama_text_model": {
            "hidden_size": 4096,
            "max_position_embeddings": 131_072,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        }
    },
    vllm=VllmSupport("it reads Llama 3.2 Vision up to version 0.10.2 only"),
)
