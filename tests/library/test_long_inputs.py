"""Documents and texts that are too long for one vector: their parts, and what stands for the whole."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.embedder import Embedder
from mllm_embed.errors import BackendError, InputError, InvalidInput, MediaTooLarge
from mllm_embed.long_inputs import best, embed_document, embed_text, mean
from mllm_embed.media import MediaPolicy
from mllm_embed.types import EmbedInput, RenderedPrompt, Text
from mllm_embed.windows import Windows

from .test_documents import pdf

pytestmark = pytest.mark.fast

WORDS = " ".join(f"cat {number} sat on the mat." for number in range(300))


@pytest.fixture
def small() -> Iterator[Embedder]:
    """An embedder that takes 128 tokens."""
    with fake_embedder() as fake:
        recipe = replace(fake.model_dir.recipe, max_tokens=128)
        with Embedder(replace(fake.model_dir, recipe=recipe), fake.backend) as small:
            yield small


def tokens(embedder: Embedder, text: str) -> list[int]:
    return embedder._preparer._renderer.tokenize(text)


# Windows


@pytest.mark.parametrize("mark", ["cat {} sat on the mat. ", "cat{}sat", "émoji 🐱🐈 ünd {} — ", "{}\n\n \t"])
@pytest.mark.parametrize("how", [Windows(), Windows(overlap=0), Windows(size=40, overlap=7), Windows(title="Cats")])
async def test_windows_fit_the_model_and_lose_nothing(small: Embedder, mark: str, how: Windows) -> None:
    text = "".join(mark.format(number) for number in range(1000, 1100))  # no two places read alike
    windows = small.windows(text, how)
    assert len(windows) > 3
    found = await small.aembed([EmbedInput.of(window) for window in windows])  # refused if one were too long
    assert max(one.tokens for one in found) <= 128
    if how.size is not None:
        assert max(len(tokens(small, window.text)) for window in windows) <= how.size
    assert {window.text.startswith("Cats\n") for window in windows} == {bool(how.title)}
    end = 0
    for window in windows:
        piece = window.text.removeprefix("Cats\n")
        begin = text.rindex(piece)
        assert begin <= end or not text[end:begin].strip()
        end = begin + len(piece)
    assert not text[end:].strip()


def test_neighbours_share_the_overlap(small: Embedder) -> None:
    text = "abcdefghij" * 90  # a token each
    one, two, *_ = small.windows(text, Windows(size=30, overlap=10))
    assert (len(one.text), len(two.text)) == (30, 30)
    assert one.text[20:] == two.text[:10] == "abcdefghij"
    assert len(small.windows(text, Windows(size=30, overlap=0))) == 30
    assert len(small.windows(text, Windows(size=30, overlap=10))) == 45


def test_what_fits_stays_whole(small: Embedder) -> None:
    assert small.windows("  a short text\n") == [Text("a short text")]
    assert small.windows("a short text", Windows(title="Title")) == [Text("Title\na short text")]


def test_a_longer_instruction_leaves_less_room(small: Embedder) -> None:
    few, many = (small.windows(WORDS, instruction=words) for words in ("Look.", "Look at what the cats do. " * 3))
    assert len(many) > len(few)


@pytest.mark.parametrize(
    ("text", "how", "says"),
    [
        (" ", Windows(), "text must not be empty"),
        ("a\ud800", Windows(), "not valid Unicode"),
        (WORDS, Windows(size=10, overlap=10), "room for more than the overlap of 10 tokens, but have room for 10 "),
        (WORDS, Windows(overlap=128), "room for more than the overlap of 128 tokens"),
        (WORDS, Windows(title="cat " * 99), "but have room for 0 beside title and instruction"),
    ],
)
def test_windows_that_cannot_be_are_refused(small: Embedder, text: str, how: Windows, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        small.windows(text, how)


def test_a_negative_overlap_is_refused() -> None:
    with pytest.raises(InvalidInput, match="overlap of windows must be at least 0, but is -1"):
        Windows(overlap=-1)


def test_a_word_at_the_end_of_a_long_text_decides(small: Embedder) -> None:
    """What truncation cannot: the last word changes the vector, and the best window is the one that holds it."""
    one, other = (embed_text(small, f"{WORDS} {last}") for last in ("zebra", "giraffe"))
    assert len(one) > 3
    np.testing.assert_array_equal(one[:-1], other[:-1])
    assert not np.array_equal(mean(one), mean(other))
    query = one[-1]
    scores, places = best(query, [other, one])
    assert places[1] == len(one) - 1
    assert scores[1] == pytest.approx(1.0)
    assert scores[1] > scores[0]


def test_text_is_embedded_under_the_options_given(small: Embedder) -> None:
    options: dict[str, Any] = {"instruction": "Look."}
    windows = small.windows(WORDS, **options)
    np.testing.assert_array_equal(embed_text(small, WORDS, **options), small.embed(windows, **options))


# Documents


def test_a_document_gives_a_vector_per_page_and_one_for_all(fake: Embedder) -> None:
    from mllm_embed.documents import pages

    source = pdf(*range(0, 200, 10))
    vectors = embed_document(fake, source, dpi=36)
    np.testing.assert_array_equal(vectors, fake.embed(pages(source, dpi=36)))
    assert vectors.shape[0] == 20
    whole = mean(vectors)
    assert np.linalg.norm(whole) == pytest.approx(1.0)
    np.testing.assert_allclose(whole, vectors.sum(0) / np.linalg.norm(vectors.sum(0)), rtol=1e-5)


class Counting:
    """An engine that counts how many pages it is given at once."""

    def __init__(self, embedder: Embedder) -> None:
        self.most = 0
        self._embed = embedder.backend.embed

    async def __call__(self, prompts: Sequence[RenderedPrompt]) -> Any:
        self.most = max(self.most, sum(len(prompt.images) for prompt in prompts))
        return await self._embed(prompts)


def test_a_document_of_300_pages_streams(fake: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(fake)
    monkeypatch.setattr(fake.backend, "embed", counting)
    vectors = embed_document(fake, pdf(*(number % 256 for number in range(300)), size=(36, 36)), dpi=72)
    assert vectors.shape[0] == 300
    assert counting.most == 16
    np.testing.assert_array_equal(vectors[0], vectors[256])


def test_a_page_that_cannot_be_embedded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    source = pdf(*range(20), size=(36, 36))
    with fake_embedder(policy=MediaPolicy(allow_urls=False, allow_paths=False, max_pixels=36 * 36)) as embedder:
        assert embed_document(embedder, source, dpi=72).shape[0] == 20
        with pytest.raises(MediaTooLarge, match="at most 1,296 pixels") as caught:
            embed_document(embedder, source, dpi=73)
        assert caught.value.index == 0
    with fake_embedder() as embedder:
        load = embedder._preparer._shown

        async def broken(page: Any) -> Any:
            if page.number == 18:
                raise InputError("the page is torn")
            return await load(page)

        monkeypatch.setattr(embedder._preparer, "_shown", broken)
        with pytest.raises(InputError, match=r"input\[17\]: the page is torn"):
            embed_document(embedder, source)


def test_5000_pages_are_refused_before_any_is_drawn(fake: Embedder) -> None:
    import pypdfium2  # type: ignore[import-untyped]  # it ships no types

    document, buffer = pypdfium2.PdfDocument.new(), io.BytesIO()
    for _ in range(5000):
        document.new_page(4, 4).close()
    document.save(buffer)
    document.close()
    with pytest.raises(MediaTooLarge, match="may have at most 1,000 pages, but has 5,000"):
        embed_document(fake, buffer.getvalue())


def test_parts_that_cancel_out_have_no_mean() -> None:
    with pytest.raises(BackendError, match="zero"):
        mean(np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32))
