"""Where media come from: bytes, a data URI, a file or a URL, within the policy; what is in them is not looked at."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mllm_embed.errors import InvalidMedia, MediaNotAllowed, MediaTooLarge
from mllm_embed.fetch import fetch

if TYPE_CHECKING:
    from mllm_embed.media import MediaPolicy

_URL = re.compile(r"https?://", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_DATA_URI = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
_LONGEST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Kind:
    """What a source is said to be in messages, and how many bytes it may have."""

    article: str
    noun: str
    example: str
    max_bytes: int

    def too_large(self, size: int) -> MediaTooLarge:
        """Return the error of a source with too many bytes."""
        return MediaTooLarge(f"{self.article} {self.noun} may have at most {self.max_bytes:,} bytes, but has {size:,}")


def is_url(source: object) -> bool:
    """Return whether a source is fetched over http(s)."""
    return isinstance(source, str) and _URL.match(source) is not None


async def fetched(source: bytes | str | Path, policy: MediaPolicy, kind: Kind) -> bytes | str | Path:
    """Return what a URL delivers; any other source is returned as it is.

    Raises:
        MediaNotAllowed: the policy refuses URLs, or this one.
        MediaTooLarge: more bytes than the kind may have.
        MediaFetchError: the URL did not deliver.
    """
    if not (isinstance(source, str) and is_url(source)):
        return source
    if not policy.allow_urls:
        raise MediaNotAllowed(f"{kind.noun} URLs are not allowed here: send the {kind.noun} as a data URI")
    return await fetch(
        source,
        max_bytes=kind.max_bytes,
        timeout_s=policy.timeout_s,
        max_redirects=policy.max_redirects,
        allow_private_addresses=policy.allow_private_addresses,
        hosts=policy.hosts,
    )


def locate(source: bytes | str | Path, policy: MediaPolicy, kind: Kind) -> bytes | Path:
    """Return the bytes of a data URI, or the path of a file that exists; neither is too large.

    Raises:
        MediaNotAllowed: the policy refuses files, or the scheme is not known.
        MediaTooLarge: more bytes than the kind may have.
        InvalidMedia: no such file, or a malformed data URI.
    """
    if isinstance(source, bytes):
        if len(source) > kind.max_bytes:
            raise kind.too_large(len(source))
        return source
    if isinstance(source, str):
        if source[:5].lower() == "data:":
            return _decode_data_uri(source, kind)
        if scheme := _SCHEME.match(source):
            raise MediaNotAllowed(f"{kind.article} {kind.noun} URL must be http, https or data, but is {scheme[1]!r}")
    if not policy.allow_paths:
        raise MediaNotAllowed(
            f"{kind.article} {kind.noun} must be a data URI (data:{kind.example};base64,...); files are not read here"
        )
    path = Path(source).expanduser()
    try:
        if not path.is_file():
            raise InvalidMedia(f"there is no {kind.noun} file {_shown(path)}")
        if (size := path.stat().st_size) > kind.max_bytes:
            raise kind.too_large(size)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(path, error, kind) from None
    return path


def read(source: bytes | str | Path, policy: MediaPolicy, kind: Kind) -> bytes:
    """Return the bytes of a source that is no URL; raises as `locate` does."""
    found = locate(source, policy, kind)
    if isinstance(found, bytes):
        return found
    try:
        with found.open("rb") as stream:
            data = stream.read(kind.max_bytes + 1)
    except OSError as error:
        raise _unreadable(found, error, kind) from None
    if len(data) > kind.max_bytes:  # it grew, or it is a device without a size
        raise kind.too_large(len(data))
    return data


def _unreadable(path: Path, error: Exception, kind: Kind) -> InvalidMedia:
    reason = error.strerror if isinstance(error, OSError) else error
    return InvalidMedia(f"the {kind.noun} file {_shown(path)} cannot be read: {reason}")


def _shown(path: Path) -> str:
    """Quote a path for a message; what was meant to be a path may be anything, of any length."""
    text = ascii(str(path))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _decode_data_uri(uri: str, kind: Kind) -> bytes:
    head = _DATA_URI.match(uri, 0, 1024)
    whose = f"{kind.article} {kind.noun}'s data URI"
    if head is None:
        raise InvalidMedia(f"{whose} must begin with data:<media type>;base64,")
    if (size := (len(uri) - head.end()) // 4 * 3 - 2) > kind.max_bytes:
        raise kind.too_large(size)
    try:
        data = binascii.a2b_base64(uri[head.end() :], strict_mode=True)
    except ValueError as error:
        raise InvalidMedia(f"{whose} is not valid base64: {error}") from None
    if len(data) > kind.max_bytes:
        raise kind.too_large(len(data))
    return data
