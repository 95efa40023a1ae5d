"""Pictures as the playground handles them: checked, small enough to send, and addressed by their content."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mllm_embed.media import MediaPolicy, load_sync
from mllm_embed.types import Image

if TYPE_CHECKING:
    from pathlib import Path

    import PIL.Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif"})
MAX_SIDE = 1568
"""Larger pictures are shrunk to so many pixels on the longer side before they are sent: requests stay small."""
_POLICY = MediaPolicy(allow_urls=False, allow_paths=False, max_bytes=50_000_000, max_pixels=100_000_000)
_SENT_AS_IS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class Payload:
    """A picture as it travels: encoded bytes and their media type."""

    data: bytes
    mime: str

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:{self.mime};base64,{base64.b64encode(self.data).decode('ascii')}"

    @property
    def key(self) -> str:
        """Short name in addresses, from the content."""
        return hashlib.sha256(self.data).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One picture of the gallery; whether it can be decoded shows when it is read.

    Attributes:
        path: its file.
        digest: SHA-256 of the file, in hex; it names the picture in the vector cache.
        title: what a person would call it.
        credit: who made it, under which licence, as its source states it.
    """

    path: Path
    digest: str
    title: str
    credit: str

    @classmethod
    def of(cls, path: Path, *, title: str, credit: str) -> Picture:
        """Describe a file; raises OSError when it cannot be read."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(path=path, digest=digest, title=title, credit=credit)

    @property
    def key(self) -> str:
        """Short name in addresses."""
        return self.digest[:16]

    def payload(self) -> Payload:
        """Read the picture as it is sent.

        Raises:
            InputError: it is no picture, damaged or larger than the limits.
            OSError: the file cannot be read.
        """
        return to_payload(self.path.read_bytes())

    def thumbnail(self, side: int) -> bytes:
        """Return a WebP whose longer side is at most `side` pixels; raises what `payload` raises."""
        image = load_sync(Image(self.path.read_bytes()), _POLICY)
        image.thumbnail((side, side))
        return _encode(image, "WEBP")


def to_payload(data: bytes) -> Payload:
    """Check a picture by decoding it; shrink or convert it if it cannot be sent as it is.

    Raises:
        InvalidMedia: no picture, or a damaged one.
        MediaTooLarge: more bytes or pixels than the limits.
    """
    image = load_sync(Image(data), _POLICY)
    mime = next((mime for magic, mime in _SENT_AS_IS.items() if data.startswith(magic)), None)
    if mime is not None and max(image.size) <= MAX_SIDE:
        return Payload(data, mime)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    if mime == "image/jpeg":  # a photo as PNG would be five times as large
        return Payload(_encode(image, "JPEG"), mime)
    return Payload(_encode(image, "PNG"), "image/png")


def _encode(image: PIL.Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=92)
    return buffer.getvalue()
