from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import torch

from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import InputBuilder
from mllm_embed.modeling.loading import load_model
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput, RenderedPrompt

Draw = Callable[..., PIL.Image.Image]
FAMILIES = ("qwen3_vl", "qwen2_vl")


class Model:
    """One family's tiny model, with what renders and builds its inputs."""

    def __init__(self, model_dir: ModelDir) -> None:
        self.dir = model_dir
        self.renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
        self.builder = InputBuilder(model_dir, self.renderer.image_token_id)

    def prompt(self, *content: object) -> RenderedPrompt:
        images = [item for item in content if isinstance(item, PIL.Image.Image)]
        return self.renderer.render(EmbedInput.of(*content), "find it", images)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tiny_model: Callable[[str], Path]) -> Model:
    return Model(open_model_dir(tiny_model(request.param)))


def test_each_placeholder_becomes_the_visual_tokens_of_its_own_picture(model: Model, draw: Draw) -> None:
    small, wide = draw(1, 64, 64), draw(2, 190, 48)
    counts = [model.dir.pixels.visual_tokens(*image.size) for image in (small, wide)]
    assert counts[0] != counts[1]
    inputs = model.builder.build([model.prompt(small, "then", wide), model.prompt("text")])
    slots = (inputs["input_ids"] == model.renderer.image_token_id) & (inputs["attention_mask"] == 1)
    assert torch.equal(slots.int(), inputs["mm_token_type_ids"])
    assert slots.sum(dim=1).tolist() == [sum(counts), 0]
    runs = [run for run in "".join("i" if slot else " " for slot in slots[0]).split(" ") if run]
    assert [len(run) for run in runs] == counts
    assert (inputs["image_grid_thw"].prod(dim=1) // 4).tolist() == counts


@pytest.mark.parametrize("size", [(96, 80), (1, 1), (1, 200), (200, 1), (640, 480), (100, 33), (48, 47)])
def test_the_pixel_rule_counts_like_the_processor(model: Model, draw: Draw, size: tuple[int, int]) -> None:
    inputs = model.builder.build([model.prompt(draw(1, *size))])
    assert int(inputs["image_grid_thw"].prod() // 4) == model.dir.pixels.visual_tokens(*size)


def test_text_alone_has_no_pixels(model: Model) -> None:
    assert set(model.builder.build([model.prompt("text")])) == {"input_ids", "attention_mask", "mm_token_type_ids"}


def test_padding_changes_no_vector(model: Model, draw: Draw) -> None:
    network = load_model(model.dir)
    prompts = [model.prompt("a"), model.prompt("much longer " * 5, draw(1)), model.prompt(draw(2), "x", draw(3))]
    with torch.inference_mode():
        alone = torch.cat([encode(network, model.builder.build([prompt])) for prompt in prompts])
        right = encode(network, model.builder.build(prompts))
        left = encode(network, model.builder.build(prompts, padding_side="left"))
    assert right.shape == (3, model.dir.recipe.dimensions)
    torch.testing.assert_close(right, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(left, alone, atol=1e-4, rtol=1e-4)
