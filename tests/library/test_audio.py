"""Audio by a toy plug-in: where its soft tokens stand, that they are what the model reads, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from mllm_embed.embedder import Embedder
from mllm_embed.errors import IncompatibleCheckpoint, InvalidInput
from mllm_embed.types import Audio, EmbedInput, Outputs, SoftTokens, Text

Array = NDArray[np.float32]


class Toy:
    """Repeats the mean of each step over the whole width, in the scale of embeddings."""

    name = "toy"

    def __init__(self, width: int = 64) -> None:
        self._width = width

    def encode(self, features: Array) -> Array:
        if features.shape[1] != 4:
            raise InvalidInput(f"the toy reads 4 bands, but there are {features.shape[1]}")
        waves = np.sin(np.arange(1, self._width + 1, dtype=np.float32))
        return np.asarray(features.mean(axis=1, keepdims=True) * waves, dtype=np.float32)


def sound(*levels: float) -> Audio:
    return Audio(np.repeat(np.array(levels, dtype=np.float32)[:, None], 4, axis=1))


@pytest.fixture
def hearing(fake: Embedder) -> Embedder:
    return Embedder(fake.model_dir, fake.backend, audio_encoder=Toy())


@pytest.mark.fast
async def test_soft_tokens_stand_where_the_recording_stands(hearing: Embedder) -> None:
    (prompt,) = await hearing._preparer.prepare([EmbedInput.of("ab", sound(1, 2, 3), "c")], "")
    (without,) = await hearing._preparer.prepare([EmbedInput.of("abc")], "")
    spelt = [token_id for token_id in prompt.token_ids if token_id >= 0]
    assert spelt == list(without.token_ids)
    before = prompt.token_ids.index(-1)
    assert prompt.token_ids[before : before + 4] == (-1, -1, -1, spelt[before])
    assert spelt[before] == without.token_ids[-2]  # the c, before the closing token
    assert prompt.soft is not None
    np.testing.assert_array_equal(prompt.soft, Toy().encode(sound(1, 2, 3).source))
    assert without.soft is None


@pytest.mark.fast
async def test_recordings_are_content_of_their_own(hearing: Embedder) -> None:
    one, other, both = await hearing.aembed(
        [EmbedInput.of(sound(1)), EmbedInput.of(sound(2)), EmbedInput.of(sound(1), "x", sound(2))],
        outputs=Outputs(multivector=True, lexical=3),
    )
    assert not np.array_equal(one.vector, other.vector)
    assert both.tokens == one.tokens + 2
    assert both.multivector is not None
    assert len(both.multivector) == 3


@pytest.mark.fast
@pytest.mark.parametrize(
    ("features", "says"),
    [
        (np.zeros(4), r"must be numbers of shape \[steps, F\], but are float64 \[4\]"),
        (np.zeros((0, 4)), r"but are float64 \[0, 4\]"),
        (np.array([["a"]]), r"must be numbers of shape \[steps, F\], but are <U1 \[1, 1\]"),
        (np.full((2, 4), np.nan), "must be finite"),
        (np.zeros((2, 5)), "the toy reads 4 bands, but there are 5"),
    ],
)
async def test_features_that_cannot_be_read_are_refused(hearing: Embedder, features: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        await hearing.aembed([EmbedInput.of("x"), EmbedInput.of(Audio(features))])
    assert caught.value.index == 1


@pytest.mark.fast
async def test_without_an_encoder_audio_is_refused(fake: Embedder) -> None:
    with pytest.raises(InvalidInput, match="the model reads no audio"):
        await fake.aembed([EmbedInput.of(sound(1))])


@pytest.mark.fast
async def test_vectors_that_do_not_fit_the_model_are_the_encoder_s_fault(fake: Embedder) -> None:
    with pytest.raises(IncompatibleCheckpoint, match=r"toy must return finite vectors of shape \[tokens, 64\]"):
        await Embedder(fake.model_dir, fake.backend, audio_encoder=Toy(32)).aembed([EmbedInput.of(sound(1))])


@pytest.mark.fast
async def test_a_template_that_fixes_the_order_has_no_place_for_them(hearing: Embedder) -> None:
    fixed = hearing.model_dir.with_recipe(template="qwen3-vl-embedding")
    with pytest.raises(InvalidInput, match="'qwen3-vl-embedding' has no place for soft tokens"):
        await Embedder(fixed, hearing.backend, audio_encoder=Toy()).aembed([EmbedInput.of(sound(1), "x")])


@pytest.mark.parametrize("family", ["qwen3_vl", "llava", "gemma3"])
def test_the_embeddings_of_a_text_s_tokens_as_soft_tokens_give_the_text_s_vector(
    family: str, tiny_model: Callable[[str], Path], draw: Callable[..., PIL.Image.Image]
) -> None:
    """Beside pictures, in a batch with prompts of other lengths, and through whatever a family does to embeddings."""
    import torch

    with Embedder.load(tiny_model(family), backend="transformers") as embedder:
        backend: Any = embedder.backend
        words = " a red cat "
        ids = embedder._preparer._renderer.tokenize(words)
        with backend._adapters.using(None) as model:
            table = model.get_input_embeddings()
            vectors = table(torch.tensor(ids)).detach().numpy()
        image = draw(1)
        items: list[Any] = [("<", image, content, ">") for content in (Text(words), SoftTokens(vectors))]
        written, soft, _ = embedder.embed([*items, "another, longer text, that the others are padded to" * 2])
        np.testing.assert_allclose(soft, written, atol=1e-5)
        (moved,) = embedder.embed([("<", image, SoftTokens(vectors[::-1].copy()), ">")])
        assert float(moved @ written) < 0.9999
