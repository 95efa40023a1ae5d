"""Position, attention and pooling modes of a recipe reach the model, in batches as alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from torch import Tensor, nn

from mllm_embed.backends.vllm import start
from mllm_embed.errors import BackendUnavailable
from mllm_embed.model_dir import ModelDir, open_model_dir
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import InputBuilder
from mllm_embed.modeling.loading import AttentionKernel, inner_model, load_model
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput, RenderedPrompt

Draw = Callable[..., PIL.Image.Image]
SERVED = ("qwen3_vl", "qwen2_vl", "qwen2_5_vl")


@pytest.fixture(scope="module", params=(*SERVED, "qwen3_vl_moe"))
def plain(request: pytest.FixtureRequest, tiny_model: Callable[[str], Path]) -> ModelDir:
    return open_model_dir(tiny_model(request.param))


def prompts(model_dir: ModelDir, draw: Draw) -> list[RenderedPrompt]:
    renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
    pictures = [draw(1), draw(2, 150, 60)]
    items = [EmbedInput.of("a"), EmbedInput.of(pictures[0], "what is it " * 3), EmbedInput.of("x", *pictures, "y")]
    images = [[], pictures[:1], pictures]
    return [renderer.render(item, "find", found) for item, found in zip(items, images, strict=True)]


def builder(model_dir: ModelDir) -> InputBuilder:
    renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
    return InputBuilder(model_dir, renderer.image_token_id)


def vectors(model_dir: ModelDir, model: nn.Module, wanted: list[RenderedPrompt], side: str = "right") -> Tensor:
    with torch.inference_mode():
        return nn.functional.normalize(encode(model, builder(model_dir).build(wanted, padding_side=side)))


@pytest.mark.parametrize(
    "modes",
    [{"position_mode": "1d"}, {"pooling": "mean"}, {"attention": "bidirectional", "pooling": "mean"}],
    ids=lambda modes: "+".join(modes.values()),
)
def test_a_mode_changes_vectors_and_padding_does_not(plain: ModelDir, modes: dict[str, str], draw: Draw) -> None:
    changed = plain.with_recipe(**modes)
    model, all_prompts = load_model(changed), prompts(plain, draw)
    alone = torch.cat([vectors(changed, model, [prompt]) for prompt in all_prompts])
    for side in ("right", "left"):
        torch.testing.assert_close(vectors(changed, model, all_prompts, side), alone, atol=1e-5, rtol=0)
    own = vectors(plain, load_model(plain), all_prompts)
    difference = (own - alone).abs().amax(dim=1)
    assert all(difference[1:] > 1e-3)
    if "position_mode" in modes:
        assert difference[0] < 1e-6  # text has 1-D positions anyway


def test_1d_positions_are_those_of_text(plain: ModelDir, draw: Draw) -> None:
    """The vector equals that of the model called with counted positions, and not that of its own."""
    one = [prompts(plain, draw)[1]]
    model = load_model(plain)
    inputs = builder(plain).build(one)
    places = torch.arange(inputs["input_ids"].shape[1]).expand(3, 1, -1)
    with torch.inference_mode():
        expected = inner_model(model)(**inputs, position_ids=places, use_cache=False).last_hidden_state[:, -1]
    got = vectors(plain.with_recipe(position_mode="1d"), model, one)
    torch.testing.assert_close(got, nn.functional.normalize(expected), atol=1e-6, rtol=0)


def first_state(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        hidden: Tensor = inner_model(model)(**inputs, use_cache=False).last_hidden_state
    return hidden[0, 0]


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize(("mode", "sees"), [("causal", False), ("bidirectional", True)])
def test_the_first_token_sees_the_last_one_only_in_both_directions(
    plain: ModelDir, kernel: AttentionKernel, mode: str, sees: bool, draw: Draw
) -> None:
    model = load_model(plain.with_recipe(attention=mode), attention=kernel)
    inputs: dict[str, Any] = builder(plain).build([prompts(plain, draw)[1]])
    before = first_state(model, inputs)
    inputs["input_ids"][0, -1] += 1
    assert bool((first_state(model, inputs) - before).abs().max() > 1e-5) is sees


@pytest.mark.parametrize("family", SERVED)
@pytest.mark.parametrize(
    ("modes", "says"),
    [
        ({"pooling": "mean"}, "its pooling is 'mean'"),
        ({"position_mode": "1d"}, "its position mode is '1d'"),
        ({"attention": "bidirectional"}, "its attention is 'bidirectional'"),
    ],
)
def test_vllm_refuses_what_it_would_not_honour(
    family: str, modes: dict[str, str], says: str, tiny_model: Callable[[str], Path]
) -> None:
    plain = open_model_dir(tiny_model(family))
    with pytest.raises(BackendUnavailable, match=rf"^vLLM cannot serve tiny: {says}.*; use the transformers backend$"):
        start(plain.with_recipe(**modes))
