from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import torch

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.families import FAMILIES
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import InputBuilder
from mllm_embed.modeling.loading import load_model
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput, RenderedPrompt

Draw = Callable[..., PIL.Image.Image]
QWEN = ("qwen3_vl", "qwen2_vl", "qwen2_5_vl")


class Model:
    """One family's tiny model, with what renders and builds its inputs."""

    def __init__(self, model_dir: ModelDir) -> None:
        self.dir = model_dir
        self.renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
        self.builder = InputBuilder(model_dir, self.renderer.image_token_id)

    def prompt(self, *content: object) -> RenderedPrompt:
        images = [item for item in content if isinstance(item, PIL.Image.Image)]
        return self.renderer.render(EmbedInput.of(*content), "find it", images)


@pytest.fixture(scope="module", params=QWEN)
def model(request: pytest.FixtureRequest, tiny_model: Callable[[str], Path]) -> Model:
    return Model(open_model_dir(tiny_model(request.param)))


@pytest.fixture(scope="module", params=FAMILIES)
def any_model(request: pytest.FixtureRequest, tiny_model: Callable[[str], Path]) -> Model:
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


def test_a_prompt_of_another_models_placeholder_is_refused(model: Model) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="but the prompts hold 3"):
        InputBuilder(model.dir, 3)


def test_padding_and_neighbours_change_no_vector(any_model: Model, draw: Draw) -> None:
    model, network = any_model, load_model(any_model.dir)
    prompts = [
        model.prompt("a"),
        model.prompt("much longer " * 5, draw(1)),
        model.prompt(draw(2), "x", draw(3, 40, 200)),
        model.prompt(draw(3, 40, 200)),
    ]
    assert [model.builder.length(prompt) for prompt in prompts] == [
        int(model.builder.build([prompt])["attention_mask"].sum()) for prompt in prompts
    ]
    with torch.inference_mode():
        alone = torch.cat([encode(network, model.builder.build([prompt])) for prompt in prompts])
        right = encode(network, model.builder.build(prompts))
        left = encode(network, model.builder.build(prompts, padding_side="left"))
        right, left, alone = (torch.nn.functional.normalize(rows) for rows in (right, left, alone))
    assert right.shape == (4, model.dir.recipe.dimensions)
    torch.testing.assert_close(right, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(left, alone, atol=1e-5, rtol=0)
