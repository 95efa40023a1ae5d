"""Multivectors and words of every family are what transformers' own model for generation computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText

from mllm_embed.embedder import Embedder
from mllm_embed.model_dir import open_model_dir
from mllm_embed.modeling.inputs import InputBuilder, ModelInputs
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput, Outputs

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "llava_next", "internvl", "idefics3", "gemma3")
TEXT = "what is it"

Draw = Callable[..., PIL.Image.Image]


class Golden:
    """What transformers' own model says of one input: a picture, then a text.

    Attributes:
        path: the model's directory.
        tokenizer: the model's, untouched by us.
        ids: what the model reads.
        states: of all tokens after the last norm, [S, D].
        logits: of the last token, [V].
    """

    def __init__(self, path: Path, image: PIL.Image.Image) -> None:
        self.path, model_dir = path, open_model_dir(path)
        self.tokenizer = Tokenizer.from_file(str(model_dir.tokenizer_file))
        self.renderer = PromptRenderer(model_dir.tokenizer_file, model_dir.family, model_dir.template)
        prompt = self.renderer.render(EmbedInput.of(image, TEXT), "find it", [image])
        inputs: ModelInputs = InputBuilder(model_dir, self.renderer.image_token_id).build([prompt])
        model: Any = AutoModelForImageTextToText.from_pretrained(str(path)).eval()
        with torch.inference_mode():
            found = model(**inputs, output_hidden_states=True)
        self.ids: list[int] = inputs["input_ids"][0].tolist()
        self.states = found.hidden_states[-1][0].numpy()
        self.logits = found.logits[0, -1].numpy()


@pytest.fixture(scope="module", params=FAMILIES)
def golden(request: pytest.FixtureRequest, tiny_model: Callable[[str], Path], draw: Draw) -> Golden:
    return Golden(tiny_model(request.param), draw(1))


def test_outputs_are_the_models_own(golden: Golden, draw: Draw) -> None:
    with Embedder.load(golden.path, backend="transformers") as embedder:
        wanted = Outputs(multivector=True, lexical=10)
        (found,) = embedder.embed_outputs([(draw(1), TEXT)], wanted, instruction="find it")
    own = _visual(golden) + _text(golden)
    expected = golden.states[own] / np.linalg.norm(golden.states[own], axis=1, keepdims=True)
    assert found.multivector is not None
    np.testing.assert_allclose(found.multivector, expected, atol=1e-5)
    assert found.lexical == pytest.approx(_words(golden, 10), abs=1e-4)


def _visual(golden: Golden) -> list[int]:
    return [place for place, token_id in enumerate(golden.ids) if token_id == golden.renderer.visual_token_id]


def _text(golden: Golden) -> list[int]:
    """Find the text's tokens: the fewest in a row that spell it."""
    for length in range(1, len(golden.ids)):
        for start in range(len(golden.ids) - length):
            if TEXT in golden.tokenizer.decode(golden.ids[start : start + length]):
                return list(range(start, start + length))
    raise AssertionError("the text is not in the prompt")


def _words(golden: Golden, most: int) -> dict[str, float]:
    """Name each piece, keep the greatest logit of each name; a loop over the vocabulary."""
    tokenizer = golden.tokenizer
    special = tokenizer.get_added_tokens_decoder()
    greatest: dict[str, float] = {}
    for token_id, logit in enumerate(golden.logits[: tokenizer.get_vocab_size()]):
        word = tokenizer.decode([token_id]).strip().lower()
        if token_id not in special and word.isalnum() and logit > 0:
            greatest[word] = max(greatest.get(word, 0.0), float(np.log1p(logit)))
    return dict(sorted(greatest.items(), key=lambda pair: -pair[1])[:most])
