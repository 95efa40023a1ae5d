from __future__ import annotations

import base64
import io
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mllm_embed import media
from mllm_embed.errors import InputError, InvalidMedia, MediaNotAllowed, MediaTooLarge
from mllm_embed.media import FORMATS, MediaPolicy, data_uri, load, load_sync
from mllm_embed.types import Image

pytestmark = pytest.mark.fast

LOCAL = MediaPolicy.local()
SERVER = MediaPolicy.server()
LOSSLESS = {"PNG": {}, "WebP": {"lossless": True}, "BMP": {}}


def picture(width: int = 48, height: int = 32) -> PIL.Image.Image:
    """A gradient whose every corner differs, so that a turned or mirrored copy is told apart."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=2)
    return PIL.Image.fromarray(pixels.astype(np.uint8))


def encoded(image: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_array(image: PIL.Image.Image) -> Any:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_decoded(kind: str) -> None:
    decoded = load_sync(Image(encoded(picture(), kind, **LOSSLESS.get(kind, {}))), SERVER)
    assert decoded.size == (48, 32)
    error = np.abs(as_array(decoded) - as_array(picture()))
    assert error.max() == 0 if kind in LOSSLESS else error.mean() < 12


async def test_every_kind_of_source_gives_the_same_picture(tmp_path: Path) -> None:
    png = encoded(picture())
    file = tmp_path / "picture.txt"  # the name says nothing
    file.write_bytes(png)
    mislabelled = "data:image/jpeg;base64," + base64.b64encode(png).decode()
    for source in (png, file, str(file), picture(), data_uri(picture()), mislabelled):
        for decoded in (await load(Image(source), LOCAL), load_sync(Image(source), LOCAL)):
            assert np.array_equal(as_array(decoded), as_array(picture()))


async def test_decoding_leaves_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    original = media._load

    def spy(*args: Any) -> PIL.Image.Image:
        threads.append(threading.current_thread())
        return original(*args)

    monkeypatch.setattr(media, "_load", spy)
    await load(Image(encoded(picture())), LOCAL)
    assert threads
    assert threads[0] is not threading.current_thread()


def test_the_callers_picture_is_not_shared() -> None:
    mine = picture()
    loaded = load_sync(Image(mine), LOCAL)
    loaded.putpixel((0, 0), (1, 2, 3))
    assert mine.getpixel((0, 0)) != (1, 2, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    from PIL import ImageOps

    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), exif=exif.tobytes())
    decoded = load_sync(Image(data), SERVER)
    expected = ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)))
    assert decoded.size == ((32, 48) if orientation > 4 else (48, 32))
    assert np.array_equal(as_array(decoded), as_array(expected))


def test_damaged_exif_does_not_lose_the_picture() -> None:
    data = encoded(picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert np.array_equal(as_array(load_sync(Image(data), SERVER)), as_array(picture()))


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (7, 255), (7, 7, 7)),
        ("L", 9, (9, 9, 9)),
        ("1", 1, (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("I;16", 40_000, (156, 156, 156)),
    ],
)
def test_every_mode_becomes_rgb_on_white(mode: str, color: Any, expected: tuple[int, int, int]) -> None:
    image = PIL.Image.new(mode, (5, 4), color)
    assert load_sync(Image(image), LOCAL).getpixel((2, 2)) == expected


def test_palettes_16_bits_and_cmyk_survive_their_files() -> None:
    palette = PIL.Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert load_sync(Image(encoded(palette)), SERVER).getpixel((0, 0)) == (10, 200, 30)
    assert load_sync(Image(encoded(palette, transparency=1)), SERVER).getpixel((0, 0)) == (255, 255, 255)
    deep = PIL.Image.fromarray(np.full((4, 4), 65_535, dtype=np.uint16))
    assert load_sync(Image(encoded(deep)), SERVER).getpixel((0, 0)) == (255, 255, 255)
    red, green, _ = as_array(
        load_sync(Image(encoded(PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")), SERVER)
    )[4, 4]
    assert red > 240
    assert green < 15


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(InvalidMedia, match=rf"8 or 16 bits per channel.*mode {mode}"):
        load_sync(Image(PIL.Image.new(mode, (4, 4))), LOCAL)


@pytest.mark.parametrize("kind", ["GIF", "WebP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [PIL.Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    red, _, blue = as_array(load_sync(Image(data), SERVER))[4, 4]
    assert red > 240
    assert blue < 15


def test_pixels_are_refused_from_the_header() -> None:
    for data in (png_header(20_000, 10_000), png_header(60_000, 60_000)):
        with pytest.raises(MediaTooLarge, match=r"at most 40,000,000 pixels, but has [\d,]+ \(\d+ x \d+\)"):
            load_sync(Image(data), SERVER)
    exact = MediaPolicy(allow_urls=False, allow_paths=False, max_pixels=48 * 32)
    assert load_sync(Image(encoded(picture(48, 32))), exact).size == (48, 32)
    with pytest.raises(MediaTooLarge, match=r"has 1,568 \(49 x 32\)"):
        load_sync(Image(picture(49, 32)), exact)


def test_a_gif_frame_larger_than_its_canvas_is_refused() -> None:
    canvas = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 8_000, 8_000, 0) + b"\x02\x02\x44\x01\x00;"
    with pytest.raises(MediaTooLarge, match="64,000,000"):
        load_sync(Image(canvas + frame), SERVER)


def test_bytes_are_limited_for_every_source(tmp_path: Path) -> None:
    data = encoded(picture())
    file = tmp_path / "picture.png"
    file.write_bytes(data)
    enough, tight = (
        MediaPolicy(allow_urls=False, allow_paths=True, max_bytes=limit) for limit in (len(data), len(data) - 1)
    )
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    for source in (data, file, uri):
        load_sync(Image(source), enough)
        with pytest.raises(MediaTooLarge, match=f"at most {len(data) - 1:,} bytes, but has {len(data):,}"):
            load_sync(Image(source), tight)


def test_an_oversized_data_uri_is_refused_before_it_is_decoded() -> None:
    tight = MediaPolicy(allow_urls=False, allow_paths=False, max_bytes=1_000)
    with pytest.raises(MediaTooLarge, match="at most 1,000 bytes"):
        load_sync(Image("data:image/png;base64," + "*" * 10_000), tight)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_invalid(kind: str, share: float) -> None:
    data = encoded(PIL.Image.effect_noise((64, 48), 60).convert("RGB"), kind)
    with pytest.raises(InvalidMedia):
        load_sync(Image(data[: max(15, int(len(data) * share))]), SERVER)


def test_hostile_bytes_raise_nothing_but_input_errors() -> None:
    rng = np.random.default_rng(0)
    for kind in FORMATS:
        data = bytearray(encoded(picture(), kind))
        for _ in range(60):
            broken = bytearray(data)
            for place in rng.integers(2, len(data), size=6):
                broken[place] = rng.integers(256)
            try:
                load_sync(Image(bytes(broken)), SERVER)
            except InputError:
                continue  # refused; some damage is only visible, and then the picture is fine


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "format must be one of PNG, JPEG"),
        (b"II*\0" + bytes(100), "format must be one of"),
        (png_header(0, 7), "PNG"),
        ("data:image/png,abc", "must begin with data:<media type>;base64,"),
        ("data:image/png;base64", "must begin with"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,a b", "not valid base64"),
        ("data:image/png;base64,QUJD\n", "not valid base64"),
        ("data:image/png;base64,QUI", "not valid base64"),
        ("data:image/png;base64,QUI=QUI=", "not valid base64"),
        ("data:image/png;base64,Q\u00fcJD", "not valid base64"),
        ("no-such-file.png", "no image file 'no-such-file.png'"),
        ("nul\0byte.png", "image file"),
        ("lone-surrogate-\udc80.png", "no image file"),
        ("x" * 5_000, "x{150}.* cannot be read"),
        (Path(__file__).parent, "no image file"),
        ("/dev/zero", "no image file"),
    ],
)
def test_bad_sources_give_one_clear_sentence(source: Any, message: str) -> None:
    with pytest.raises(InvalidMedia, match=message) as caught:
        load_sync(Image(source), LOCAL)
    assert len(str(caught.value).encode()) < 400


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(InvalidMedia, match="no pixels: it is 0 x 5"):
        load_sync(Image(PIL.Image.new("RGB", (0, 5))), LOCAL)


def test_the_server_policy_reads_no_files(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    picture().save(file)
    for source in (file, str(file), str(tmp_path / "absent.png")):  # existing or not, the answer is the same
        with pytest.raises(MediaNotAllowed, match="must be a data URI"):
            load_sync(Image(source), SERVER)


@pytest.mark.parametrize("scheme", ["file", "ftp", "gopher", "s3"])
@pytest.mark.parametrize("policy", [LOCAL, SERVER], ids=["local", "server"])
async def test_other_schemes_are_refused(scheme: str, policy: MediaPolicy) -> None:
    with pytest.raises(MediaNotAllowed, match=f"but is '{scheme}'"):
        await load(Image(f"{scheme}:///etc/passwd"), policy)


async def test_urls_need_permission_and_the_async_function() -> None:
    for url in ("http://example.org/a.png", "HTTPS://example.org/a.png"):
        with pytest.raises(MediaNotAllowed, match="URLs are not allowed here"):
            await load(Image(url), SERVER)
        with pytest.raises(MediaNotAllowed, match="URLs are not fetched here"):
            load_sync(Image(url), LOCAL)
    assert MediaPolicy.server(allow_urls=True).allow_urls
    assert not MediaPolicy.server(allow_urls=True).allow_paths
    assert not MediaPolicy.server(allow_urls=True).allow_private_addresses


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_data_uris_round_trip(mode: str) -> None:
    image = picture().convert(mode)
    expected = load_sync(Image(image), LOCAL)
    assert np.array_equal(as_array(load_sync(Image(data_uri(image)), SERVER)), as_array(expected))


def test_pillows_own_pixel_limit_does_not_interfere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    assert load_sync(Image(encoded(picture())), SERVER).size == (48, 32)
