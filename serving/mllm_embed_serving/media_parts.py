"""Pictures, regions of them, videos and documents, as requests write them; never a file on the server.

Whether URLs are allowed, and whether the bytes are what they should be, is found out when they are loaded.
"""

from __future__ import annotations

import re
from typing import Any

from mllm_embed import regions
from mllm_embed.errors import InvalidInput, MediaNotAllowed
from mllm_embed.sources import is_url
from mllm_embed.types import Document, Image, Region, Video
from mllm_embed_serving import fields
from mllm_embed_serving.errors import InvalidParameter

DEFAULT_FRAMES = 8
"""Frames of a video whose part does not say how many."""
DEFAULT_DPI = 144
"""Dots per inch at which a document is drawn whose part does not say how many."""
MOST_DPI = 600
_URI = re.compile(r"(data:|https?://)", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def read_image(value: Any, path: str, region: Region | None = None) -> Image:
    """Read a picture.

    Raises:
        InvalidParameter: neither a data URI, the base64 of a file, nor a URL.
        MediaNotAllowed: a URL of another kind than http(s).
    """
    return Image(_source(value, path, "an image", "image/png"), region)


def read_video(value: Any, path: str, part: dict[str, Any], part_path: str, most: int) -> Video:
    """Read a video, and from its part how many `frames` of it are used, or how many per second (`fps`).

    Raises:
        InvalidParameter: neither a data URI, the base64 of a file, nor a URL; more than `most` frames, or none.
        MediaNotAllowed: a URL of another kind than http(s).
    """
    frames = fields.positive_integer(part.get("frames"), f"{part_path}.frames")
    if frames is not None and frames > most:
        raise InvalidParameter(f"may be at most {most}, but is {frames}", param=f"{part_path}.frames")
    fps = fields.positive_number(part.get("fps"), f"{part_path}.fps")
    source = _source(value, path, "a video", "video/mp4")
    return Video(source, min(DEFAULT_FRAMES, most) if frames is None else frames, fps)


def read_document(value: Any, path: str, part: dict[str, Any], part_path: str) -> Document:
    """Read a PDF, and from its part which `pages` of it are read, at how many `dpi`.

    Raises:
        InvalidParameter: neither a data URI, the base64 of a file, nor a URL; pages that are no numbers from 1 on.
        MediaNotAllowed: a URL of another kind than http(s).
    """
    dpi = fields.positive_integer(part.get("dpi"), f"{part_path}.dpi") or DEFAULT_DPI
    if dpi > MOST_DPI:
        raise InvalidParameter(f"may be at most {MOST_DPI}, but is {fields.shown(str(dpi))}", param=f"{part_path}.dpi")
    source = _source(value, path, "a document", "application/pdf")
    return Document(source, _page_numbers(part.get("pages"), f"{part_path}.pages"), dpi)


def _page_numbers(value: Any, path: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise fields.wrong_type("an array of page numbers", value, path)
    if not value:
        raise InvalidParameter("must not be an empty array", param=path)
    for position, number in enumerate(value):
        if fields.positive_integer(number, f"{path}[{position}]") is None:
            raise fields.wrong_type("a page number", number, f"{path}[{position}]")
    return tuple(value)


def read_region(value: Any, path: str) -> Region | None:
    """Read a region of a picture: an object with one of point, box and mask; null is none.

    Raises:
        InvalidParameter: anything else.
        MediaNotAllowed: a mask that is a URL.
    """
    if value is None:
        return None
    try:
        return regions.from_json(value, lambda mask: _mask(mask, f"{path}.mask"))
    except InvalidInput as error:
        raise InvalidParameter(error.message, param=path) from None


def _mask(value: str, path: str) -> str:
    if is_url(value):
        raise MediaNotAllowed("a mask must be a data URI, base64 or an object with size and counts, but is a URL")
    return _source(value, path, "a mask", "image/png")


def _source(value: Any, path: str, what: str, example: str) -> str:
    if not isinstance(value, str):
        raise fields.wrong_type("a string (a data URI, base64, or a URL)", value, path)
    if _URI.match(value):
        return value
    if _SCHEME.match(value[:64]):
        raise MediaNotAllowed(f"{what} must be a data URI, base64 or an http(s) URL, but is {fields.shown(value)}")
    if not value or not _BASE64.fullmatch(value):
        raise InvalidParameter(
            f"must be a data URI (data:{example};base64,…), the base64 of a file, or an http(s) URL, "
            f"but is {fields.shown(value)}; files on the server are never read",
            param=path,
        )
    return f"data:;base64,{value}"
