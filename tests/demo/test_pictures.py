from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from mllm_embed.errors import InvalidMedia, MediaTooLarge
from mllm_embed_demo import pictures
from mllm_embed_demo.pictures import MAX_SIDE, Picture, to_payload

pytestmark = pytest.mark.fast


def encode(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_small_common_pictures_travel_as_they_are(draw: Callable[..., PIL.Image.Image], kind: str, mime: str) -> None:
    data = encode(draw(0), kind)
    payload = to_payload(data)
    assert (payload.data, payload.mime) == (data, mime)
    assert payload.uri == f"data:{mime};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP"])
def test_other_formats_travel_as_png(draw: Callable[..., PIL.Image.Image], kind: str) -> None:
    payload = to_payload(encode(draw(0), kind))
    assert payload.mime == "image/png"
    assert PIL.Image.open(io.BytesIO(payload.data)).format == "PNG"


@pytest.mark.parametrize(("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_large_pictures_are_shrunk(draw: Callable[..., PIL.Image.Image], kind: str, mime: str) -> None:
    payload = to_payload(encode(draw(0, 2 * MAX_SIDE, MAX_SIDE), kind))
    assert payload.mime == mime
    assert PIL.Image.open(io.BytesIO(payload.data)).size == (MAX_SIDE, MAX_SIDE // 2)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken", b"<svg/>"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMedia):
        to_payload(data)


def test_a_truncated_picture_is_refused(draw: Callable[..., PIL.Image.Image]) -> None:
    with pytest.raises(InvalidMedia):
        to_payload(encode(draw(0), "PNG")[:-200])


def test_too_many_pixels_are_refused_before_decoding() -> None:
    bomb = encode(PIL.Image.new("1", (20_000, 10_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(MediaTooLarge, match="100,000,000"):
        to_payload(bomb)


def test_a_picture_is_known_by_its_content(tmp_path: Path, draw: Callable[..., PIL.Image.Image]) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        draw(seed).save(path)
    one, same, other = (Picture.of(path, title="t", credit="c") for path in paths)
    assert one.key == same.key != other.key
    assert one.payload().key == one.key


def test_a_thumbnail_is_small(tmp_path: Path, draw: Callable[..., PIL.Image.Image]) -> None:
    draw(0, 400, 200).save(tmp_path / "a.png")
    data = Picture.of(tmp_path / "a.png", title="t", credit="c").thumbnail(100)
    assert PIL.Image.open(io.BytesIO(data)).size == (100, 50)


def test_every_suffix_can_be_read(draw: Callable[..., PIL.Image.Image]) -> None:
    kinds = {PIL.Image.registered_extensions()[suffix] for suffix in pictures.SUFFIXES}
    for kind in kinds:
        assert to_payload(encode(draw(0), kind)).data
