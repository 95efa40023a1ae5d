from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from mllm_embed.errors import InvalidInput
from mllm_embed.types import EmbedInput, Image, Text, as_inputs

pytestmark = pytest.mark.fast


def test_items_are_coerced_in_order() -> None:
    picture = PIL.Image.new("RGB", (2, 2))
    item = EmbedInput.of("a", Image("b.png"), Path("c.png"), picture, b"d", Text("e"), instruction="i")
    expected = (Text("a"), Image("b.png"), Image(Path("c.png")), Image(picture), Image(b"d"), Text("e"))
    assert item == EmbedInput(expected, "i")


def test_a_string_is_text_even_if_it_looks_like_a_picture() -> None:
    for text in ("https://example.org/a.png", "data:image/png;base64,AAAA", "<|image_pad|>"):
        assert EmbedInput.of(text).content == (Text(text),)


def test_mixed_lists_become_one_input_each() -> None:
    ready = EmbedInput.of("ready", instruction="own")
    inputs = as_inputs(["a", ready, ("b", Path("c.png")), ["d", "e"]])
    assert inputs == [
        EmbedInput((Text("a"),)),
        ready,
        EmbedInput((Text("b"), Image(Path("c.png")))),
        EmbedInput((Text("d"), Text("e"))),
    ]


@pytest.mark.parametrize("nothing", [(), []])
def test_an_input_without_content_is_refused(nothing: object) -> None:
    with pytest.raises(InvalidInput, match="needs at least one text or image, but has none"):
        EmbedInput.of()
    with pytest.raises(InvalidInput, match=r"input\[1\]: .*has none"):
        as_inputs(["a", nothing])


@pytest.mark.parametrize("wrong", [1, 1.5, None, {"text": "a"}, object()])
def test_other_types_are_refused_by_name(wrong: object) -> None:
    with pytest.raises(InvalidInput, match=f"content must be .* but is {type(wrong).__name__}") as caught:
        as_inputs(["a", "b", ("c", wrong)])
    assert caught.value.index == 2


def test_equal_inputs_are_one_key() -> None:
    assert len({EmbedInput.of("a", b"x"), EmbedInput.of("a", b"x"), EmbedInput.of(b"x", "a")}) == 2
