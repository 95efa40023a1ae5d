"""Llama 3.2 Vision: one layer of cross attention between two of self attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from torch import Tensor, nn

from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.encode import token_states
from mllm_embed.modeling.inputs import InputBuilder, ModelInputs
from mllm_embed.modeling.loading import load_base
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput
from tests.tiny_models import PATCH, SIDE, TEXT, VISION, change_weights, write

BOS, PICTURE = "<|begin_of_text|>", "<|image|>"
TOKENS = ("<|finetune_right_pad_id|>", "<|eot_id|>", BOS, "<|start_header_id|>", "<|end_header_id|>", PICTURE)
TRANSFORMERS_4 = {
    "model.language_model.": "language_model.model.",
    "model.vision_model.": "vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}
"""What modules were called up to transformers 4.51."""

Draw = Callable[..., PIL.Image.Image]


def make_tiny(path: Path) -> None:
    write(path, "mllama", TOKENS, _config, _processor)
    change_weights(path, lambda name, tensor: tensor + 1.0 if "gate" in name and tensor.numel() == 1 else tensor)


def _config(ids: Mapping[str, int], vocabulary: int) -> dict[str, Any]:
    text = {**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1], "vocab_size": vocabulary}
    vision = {key: value for key, value in VISION.items() if key != "num_attention_heads"}
    return {
        "text_config": {**text, "pad_token_id": ids[TOKENS[0]]},
        "vision_config": {
            **vision,
            "attention_heads": 2,
            "num_global_layers": 1,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 2 * VISION["hidden_size"],
        },
        "image_token_index": ids[PICTURE],
    }


def _processor(tokenizer: Any) -> Any:
    from transformers import MllamaImageProcessor, MllamaProcessor

    tokenizer.bos_token = BOS  # the processor puts it in front, where it is missing; the tokenizer does not
    return MllamaProcessor(MllamaImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer)


@pytest.fixture(scope="module")
def tiny(tiny_model: Callable[[str], Path]) -> ModelDir:
    return open_model_dir(tiny_model("mllama"))


@pytest.fixture(scope="module")
def model(tiny: ModelDir) -> nn.Module:
    return load_base(tiny.weights).eval()


def inputs(tiny: ModelDir, *items: tuple[object, ...]) -> ModelInputs:
    renderer = PromptRenderer(tiny.tokenizer_file, tiny.family, tiny.template)
    images = [[piece for piece in item if isinstance(piece, PIL.Image.Image)] for item in items]
    prompts = [renderer.render(EmbedInput.of(*item), "", found) for item, found in zip(items, images, strict=True)]
    return InputBuilder(tiny, renderer.image_token_id).build(prompts)


def states(model: nn.Module, given: ModelInputs) -> Tensor:
    with torch.inference_mode():
        return token_states(model, given)


@pytest.mark.parametrize(
    "content",
    [["I", "a cat"], ["a", "I", "cat"], ["I", "I", "a cat"], ["a", "I", "b", "I", "cat"], ["I", "S", "a"]],
    ids=" ".join,
)
def test_tokens_look_at_what_transformers_processor_shows_them(
    content: list[str], tiny: ModelDir, own_processor: Callable[[Path], Any], draw: Draw
) -> None:
    pictures = {"I": draw(1), "S": draw(2, 40, 30)}  # four tiles, and one
    images = [pictures[piece] for piece in content if piece in pictures]
    ours = inputs(tiny, tuple(pictures.get(piece, piece) for piece in content))
    text = f"{BOS}\n{''.join(PICTURE if piece in pictures else piece for piece in content)}<|eot_id|>"
    theirs = own_processor(tiny.weights)(text=text, images=[images], return_tensors="pt")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_text_does_not_look_at_the_picture_behind_it(tiny: ModelDir, model: nn.Module, draw: Draw) -> None:
    """transformers alone would let it; what stands behind the picture does."""
    one, other = (states(model, inputs(tiny, ("what is it", draw(seed), "then")))[0] for seed in (1, 2))
    before = inputs(tiny, ("what is it", draw(1)))["cross_attention_mask"][0].any(dim=(1, 2)).int().argmax()
    assert before > 3
    torch.testing.assert_close(one[:before], other[:before], atol=0, rtol=0)
    assert (one[before:] - other[before:]).abs().amax(dim=1).min() > 1e-3


def test_a_picture_costs_its_tiles_and_is_one_token(tiny: ModelDir, draw: Draw) -> None:
    """What cross attention looks at counts where batches are made up, and not against the longest prompt."""
    renderer = PromptRenderer(tiny.tokenizer_file, tiny.family, tiny.template)
    builder, image = InputBuilder(tiny, renderer.image_token_id), draw(1)
    with_picture = renderer.render(EmbedInput.of("a cat", image), "", [image])
    alone = renderer.render(EmbedInput.of("a cat"), "", [])
    assert builder.length(with_picture) == builder.length(alone) + 1
    assert builder.cost(alone) == builder.length(alone)
    assert builder.cost(with_picture) == builder.length(with_picture) + 4 * ((SIDE // PATCH) ** 2 + 1)


@pytest.mark.parametrize("changed", ["image_size", "max_num_tiles"])
def test_a_tower_for_other_tiles_is_refused(changed: str, tiny: ModelDir, refused_with: Callable[..., None]) -> None:
    import json

    vision = json.loads((tiny.weights / "config.json").read_text(encoding="utf-8"))["vision_config"]
    refused_with("mllama", {"vision_config": {**vision, changed: 1}}, f"{changed} must be the processor's")
