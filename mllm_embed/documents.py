"""A PDF -> its pages -> pictures, one page at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mllm_embed import media
from mllm_embed.errors import InvalidInput, InvalidMedia, MediaTooLarge
from mllm_embed.media import MediaPolicy
from mllm_embed.sources import Kind, fetched, locate
from mllm_embed.types import Content, Document, Opened, Page, SoftTokens

if TYPE_CHECKING:
    import PIL.Image

_POINTS_PER_INCH = 72
_PDFIUM = threading.Lock()
"""PDFium works for one thread at a time."""

T = TypeVar("T")


def pages(source: bytes | str | Path, *, dpi: int = 144, policy: MediaPolicy | None = None) -> list[Page]:
    """Return all pages of a PDF, to be embedded one by one; none is drawn yet.

    Args:
        source: encoded bytes, a data URI, or a path; no URL.
        dpi: dots per inch at which each page will be drawn.
        policy: limits; None takes those for local use.

    Raises:
        InvalidMedia: no such file, no PDF, encrypted, or without pages.
        MediaTooLarge: more bytes or pages than allowed.
        MediaNotAllowed: the policy refuses the source.
    """
    return list(_pages(Document(source, dpi=dpi), policy if policy is not None else MediaPolicy.local()))


async def opened(content: Sequence[Content], policy: MediaPolicy) -> list[Opened | SoftTokens]:
    """Return content with the pages of its documents in their place, none of them drawn yet.

    Args:
        content: of an input.
        policy: what is allowed.

    Raises:
        InvalidInput: a document has no such page.
        InvalidMedia: no such file, no PDF, encrypted, or without pages.
        MediaTooLarge: more bytes or pages than allowed.
        MediaNotAllowed: the policy refuses the source.
        MediaFetchError: the URL did not deliver.
    """
    parts: list[Opened | SoftTokens] = []
    for part in content:
        if isinstance(part, Document):
            source = await fetched(part.source, policy, kind(policy))
            parts += await _in_turn(_pages, replace(part, source=source), policy)
        else:
            parts.append(part)
    return parts


async def load(page: Page, policy: MediaPolicy) -> PIL.Image.Image:
    """Draw a page, without holding up the event loop.

    Args:
        page: source, number and resolution.
        policy: what is allowed.

    Returns:
        the page in mode RGB, on white.

    Raises:
        InvalidInput: there is no such page, or the resolution is not positive.
        InvalidMedia: no such file, no PDF, or encrypted.
        MediaTooLarge: more bytes, pages or pixels than allowed.
        MediaNotAllowed: the policy refuses the source.
        MediaFetchError: the URL did not deliver.
    """
    source = await fetched(page.source, policy, kind(policy))
    return await _in_turn(_draw, source, page, policy)


async def _in_turn(work: Callable[..., T], *arguments: object) -> T:
    """Run a function in the thread for documents: those that wait for PDFium take none from pictures and videos."""
    return await asyncio.get_running_loop().run_in_executor(_thread(), work, *arguments)


@lru_cache(maxsize=1)
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="mllm-embed-pdf")


def _pages(document: Document, policy: MediaPolicy) -> Sequence[Page]:
    """Return the pages that are meant; they share the bytes of their document."""
    found = locate(document.source, policy, kind(policy))
    with _open(found, policy) as opened:
        numbers = document.numbers if document.numbers is not None else range(1, len(opened) + 1)
        for number in numbers:
            _check_number(number, len(opened))
    return [Page(found, number, document.dpi) for number in numbers]


def _check_number(number: int, pages: int) -> None:
    if not 1 <= number <= pages:
        raise InvalidInput(f"the document has {pages} pages, but page {number} is asked for")


def _draw(source: bytes | str | Path, page: Page, policy: MediaPolicy) -> PIL.Image.Image:
    if page.dpi < 1:
        raise InvalidInput(f"dpi must be at least 1, but is {page.dpi}")
    with _open(source, policy) as document:
        _check_number(page.number, len(document))
        drawn = document[page.number - 1]
        scale = page.dpi / _POINTS_PER_INCH
        width, height = (round(side * scale) for side in drawn.get_size())
        if width * height > policy.max_pixels:
            raise MediaTooLarge(
                f"a page may have at most {policy.max_pixels:,} pixels, but page {page.number} has "
                f"{width * height:,} at {page.dpi} dpi ({width} x {height})"
            )
        picture: PIL.Image.Image = drawn.render(scale=scale).to_pil()
        return media.decode(picture, policy)


@contextmanager
def _open(source: bytes | str | Path, policy: MediaPolicy) -> Iterator[Any]:
    """Open a PDF for this thread alone."""
    import pypdfium2  # type: ignore[import-untyped]  # it ships no types

    found = locate(source, policy, kind(policy))
    if isinstance(found, bytes) and not found:
        raise InvalidMedia("the document is empty (0 bytes)")
    with _PDFIUM:
        try:
            document = pypdfium2.PdfDocument(found)
        except pypdfium2.PdfiumError as error:
            reason = "is encrypted" if "password" in str(error).lower() else "is not a PDF, or is corrupt"
            raise InvalidMedia(f"the document {reason}") from None
        try:
            if not len(document):
                raise InvalidMedia("the document has no pages")
            if len(document) > policy.max_pages:
                raise MediaTooLarge(
                    f"a document may have at most {policy.max_pages:,} pages, but has {len(document):,}"
                )
            yield document
        finally:
            document.close()


def kind(policy: MediaPolicy) -> Kind:
    """Return what a document is called in messages, and how many bytes it may have."""
    return Kind("a", "document", "application/pdf", policy.max_document_bytes)
