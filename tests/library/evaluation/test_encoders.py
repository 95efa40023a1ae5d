import io

import numpy as np
import PIL.Image
import pytest

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.errors import InvalidInput
from mllm_embed.evaluation.encoders import EmbedderEncoder, PixelEncoder
from mllm_embed.evaluation.eval_types import item_key
from mllm_embed.types import Content, EmbedInput, Image, Region, Text, Video

pytestmark = pytest.mark.fast


def plain(colour: tuple[int, int, int], size: int = 30) -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("RGB", (size, size), colour).save(stream, "PNG")
    return stream.getvalue()


def test_pixels_compare_colours_not_sizes() -> None:
    items = [EmbedInput.of(plain(c, s)) for c, s in (((200, 0, 0), 30), ((200, 0, 0), 60), ((0, 0, 200), 30))]
    vectors = PixelEncoder().encode(items)
    assert vectors.shape == (3, 14 * 14 * 3)
    assert vectors[0] @ vectors[1] == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[2] < 0.1


def test_a_black_picture_has_a_direction() -> None:
    assert np.linalg.norm(PixelEncoder().encode([EmbedInput.of(plain((0, 0, 0)))])) == pytest.approx(1)


def test_an_embedder_is_asked_with_the_items_own_instruction() -> None:
    with fake_embedder() as embedder:
        encoder = EmbedderEncoder(embedder, precision="float32")
        one, other = (EmbedInput.of("a cat", instruction=text) for text in ("Find it.", "Name it."))
        vectors = encoder.encode([one, other, one])
        expected = embedder.embed(["a cat"], instruction="Find it.")
    np.testing.assert_array_equal(vectors[0], expected[0])
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert vectors[0] @ vectors[1] < 0.999


def test_the_description_says_what_decides_the_vectors() -> None:
    with fake_embedder() as embedder:
        description = EmbedderEncoder(embedder, precision="float32").describe()
    assert description["fingerprint"] == embedder.model_dir.fingerprint
    assert {"name", "template", "template_version", "backend", "precision", "full_dimensions"} <= set(description)


def test_item_keys_tell_content_order_and_instruction_apart() -> None:
    red = plain((255, 0, 0))
    items = [
        EmbedInput.of("ab", "c"),
        EmbedInput.of("a", "bc"),
        EmbedInput.of("abc"),
        EmbedInput.of("abc", instruction="Find."),
        EmbedInput.of(red, "abc"),
        EmbedInput.of("abc", red),
        EmbedInput((Image(red),)),
        EmbedInput((Text(red.hex()),)),
        EmbedInput((Image(PIL.Image.new("RGB", (2, 8))),)),
        EmbedInput((Image(PIL.Image.new("RGB", (8, 2))),)),
    ]
    assert len({item_key(item) for item in items}) == len(items)
    assert item_key(EmbedInput.of("ab", "c")) == item_key(items[0])


@pytest.mark.parametrize(
    ("content", "says"),
    [(Image(b"", Region(point=(1, 1))), "but an item holds a region"), (Video(b""), "but an item holds a Video")],
)
def test_what_has_no_key_is_refused(content: Content, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        item_key(EmbedInput((content,)))
