"""Any picture source -> a decoded RGB picture, within limits: the only place that decodes pictures.

What a source says about itself (file name, MIME type) is ignored: the format is read from its first bytes, its size
from its header, and only then is it decoded.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
import PIL.Image
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
    features,
)
from PIL.Image import Transpose

from mllm_embed.errors import InvalidMedia, MediaNotAllowed, MediaTooLarge
from mllm_embed.fetch import ANY_PUBLIC, HostRules
from mllm_embed.sources import Kind, fetched, is_url, read

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from mllm_embed.types import Image

_HEADERS: dict[str, tuple[re.Pattern[bytes], type[ImageFile]]] = {
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    "WebP": (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    "GIF": (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    "BMP": (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    "AVIF": (re.compile(rb"....ftyp(avif|avis|mif1|msf1)", re.DOTALL), AvifImagePlugin.AvifImageFile),
}
_NEEDS = {"WebP": "webp", "AVIF": "avif"}
FORMATS: tuple[str, ...] = tuple(name for name in _HEADERS if name not in _NEEDS or features.check(_NEEDS[name]))
"""The formats that are decoded; WebP and AVIF where this Pillow was built with them."""

T = TypeVar("T")

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaPolicy:
    """Where pictures may come from, and how large they may be."""

    allow_urls: bool
    """Whether http(s) URLs are fetched."""
    allow_paths: bool
    """Whether files are read."""
    allow_private_addresses: bool = False
    """Whether URLs may lead to hosts that are not on the open internet."""
    hosts: HostRules = ANY_PUBLIC
    """Which hosts may be asked."""
    max_bytes: int = 20_000_000
    """Largest encoded picture."""
    max_pixels: int = 40_000_000
    """Largest width x height, checked before decoding."""
    max_video_bytes: int = 500_000_000
    """Largest encoded video."""
    max_video_seconds: float = 3600.0
    """Longest video."""
    max_video_decode_s: float = 300.0
    """Seconds that decoding one video may take, since a small file can hold very many large frames."""
    max_document_bytes: int = 100_000_000
    """Largest encoded PDF."""
    max_pages: int = 1000
    """Most pages of a PDF, whichever of them are used."""
    max_total_pixels: int | None = None
    """Most pixels of all pictures of one call, since they are in memory together; None is no limit."""
    timeout_s: float = 10.0
    """Seconds for fetching one URL, redirects included."""
    max_redirects: int = 3
    """Redirects that are followed, each checked like the first URL."""

    @classmethod
    def local(cls) -> Self:
        """Return the policy for a person's own scripts: files and public URLs."""
        return cls(allow_urls=True, allow_paths=True)

    @classmethod
    def server(cls, *, allow_urls: bool = False) -> Self:
        """Return the policy for input from strangers: no files, and public URLs only on request."""
        return cls(allow_urls=allow_urls, allow_paths=False)


async def load(image: Image, policy: MediaPolicy) -> PIL.Image.Image:
    """Fetch, check and decode one picture, without holding up the event loop.

    Args:
        image: the picture; a string source is an http(s) URL, a data URI or else a file path.
        policy: what is allowed.

    Returns:
        the picture in mode RGB, upright (EXIF), transparency on white; of an animation, the first frame.

    Raises:
        MediaNotAllowed: the policy refuses the source.
        MediaTooLarge: more bytes or pixels than the policy allows.
        MediaFetchError: the URL did not deliver.
        InvalidMedia: no such file, malformed data URI, unsupported format, or corrupt data.
    """
    source = image.source
    if not isinstance(source, PIL.Image.Image):
        source = await fetched(source, policy, kind(policy))
    return await in_decoder(_load, source, policy)


async def in_decoder(decode: Callable[..., T], *arguments: object) -> T:
    """Run a decoding function in one of the decoding threads."""
    return await asyncio.get_running_loop().run_in_executor(_decoders(), decode, *arguments)


def load_sync(image: Image, policy: MediaPolicy) -> PIL.Image.Image:
    """Check and decode one picture in this thread; like `load`, but without URLs.

    Raises:
        MediaNotAllowed: the policy refuses the source, or it is a URL.
        MediaTooLarge: more bytes or pixels than the policy allows.
        InvalidMedia: no such file, malformed data URI, unsupported format, or corrupt data.
    """
    if is_url(image.source):
        raise MediaNotAllowed("image URLs are not fetched here: download the picture first")
    return _load(image.source, policy)


def data_uri(image: PIL.Image.Image) -> str:
    """Return a picture as a PNG data URI, losslessly for 8-bit pictures."""
    buffer = io.BytesIO()
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = _to_rgb(image)
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _load(source: bytes | str | Path | PIL.Image.Image, policy: MediaPolicy) -> PIL.Image.Image:
    if isinstance(source, PIL.Image.Image):
        return decode(source, policy)
    with _open(read(source, policy, kind(policy))) as image:
        return decode(image, policy)


def kind(policy: MediaPolicy) -> Kind:
    """Return what a picture is called in messages, and how many bytes it may have."""
    return Kind("an", "image", "image/png", policy.max_bytes)


def _open(data: bytes) -> PIL.Image.Image:
    """Read the header only.

    The format's own reader is called, not `PIL.Image.open`: that one has a pixel limit of its own, process-wide, which
    warns or raises before ours could.
    """
    if not data:
        raise InvalidMedia("the image is empty (0 bytes)")
    for name in FORMATS:
        signature, reader = _HEADERS[name]
        if signature.match(data):
            try:
                return reader(io.BytesIO(data))
            except Exception as error:  # noqa: BLE001 - on hostile bytes the readers raise almost anything
                raise InvalidMedia(f"the image is not a valid {name}: {error}") from None
    raise InvalidMedia(f"the image's format must be one of {', '.join(FORMATS)}, but its bytes are of none of these")


def decode(image: PIL.Image.Image, policy: MediaPolicy) -> PIL.Image.Image:
    """Check and decode an opened picture; see `load`."""
    width, height = image.size
    if width * height == 0:
        raise InvalidMedia(f"the image has no pixels: it is {width} x {height}")
    if width * height > policy.max_pixels:
        raise MediaTooLarge(
            f"an image may have at most {policy.max_pixels:,} pixels, but has {width * height:,} ({width} x {height})"
        )
    try:
        image.load()
        rgb = _to_rgb(image)
        turn = _UPRIGHT.get(_orientation(image))
    except InvalidMedia:
        raise
    except Exception as error:  # noqa: BLE001 - on hostile bytes the decoders raise almost anything
        raise InvalidMedia(f"the image is truncated or corrupt: {error}") from None
    return rgb if turn is None else rgb.transpose(turn)


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Copy to RGB from any mode; transparency goes on white."""
    if image.mode in ("I", "F"):
        raise InvalidMedia(f"an image must have 8 or 16 bits per channel, but is of Pillow's mode {image.mode}")
    if image.mode.startswith("I;16"):  # Pillow clips these at 255 instead of scaling them
        image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _orientation(image: PIL.Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) if there is none."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged metadata says nothing about the pixels, which are fine
        return 1


@lru_cache(maxsize=1)
def _decoders() -> ThreadPoolExecutor:
    """Make the decoding threads: as many as there are cores, which also bounds the memory that decoding takes."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="mllm-embed-media")
