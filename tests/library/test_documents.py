"""PDFs that are made here: pages as pictures, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mllm_embed import documents
from mllm_embed.documents import pages
from mllm_embed.embedder import Embedder
from mllm_embed.errors import InvalidInput, InvalidMedia, MediaNotAllowed, MediaTooLarge
from mllm_embed.media import MediaPolicy
from mllm_embed.types import EmbedInput, Page

pytestmark = pytest.mark.fast

LOCAL = MediaPolicy.local()


def pdf(*greys: int, size: tuple[int, int] = (144, 72)) -> bytes:
    """A document whose pages are filled with these greys; sizes are in points."""
    sheets = [PIL.Image.new("L", size, grey) for grey in greys]
    buffer = io.BytesIO()
    sheets[0].save(buffer, "PDF", resolution=72.0, save_all=True, append_images=sheets[1:])
    return buffer.getvalue()


def encrypted() -> bytes:
    """A document that names an encryption which nobody can undo."""
    plain = pdf(50)
    guard = b"/Encrypt << /Filter /Standard /V 1 /R 2 /O <" + b"00" * 32 + b"> /U <" + b"11" * 32 + b"> /P -4 >> "
    return plain.replace(b"trailer\n<<", b"trailer\n<< " + guard + b"/ID [<00> <00>] ", 1)


async def draw(source: Any, number: int = 1, dpi: int = 72, policy: MediaPolicy = LOCAL) -> PIL.Image.Image:
    return await documents.load(Page(source, number, dpi), policy)


async def test_every_page_is_a_picture_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "three.pdf").write_bytes(pdf(0, 100, 200))
    found = pages(tmp_path / "three.pdf", dpi=36)
    assert [(page.number, page.dpi) for page in found] == [(1, 36), (2, 36), (3, 36)]
    drawn = [await documents.load(page, LOCAL) for page in found]
    assert [image.size for image in drawn] == [(72, 36)] * 3
    assert [round(float(np.asarray(image).mean())) for image in drawn] == pytest.approx([0, 100, 200], abs=2)


@pytest.mark.parametrize(("dpi", "size"), [(72, (144, 72)), (144, (288, 144))])
async def test_the_resolution_decides_the_size(dpi: int, size: tuple[int, int]) -> None:
    assert (await draw(pdf(0), dpi=dpi)).size == size


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", r"the document is empty \(0 bytes\)"),
        (b"no document", "the document is not a PDF, or is corrupt"),
        (pdf(1)[:200], "the document is not a PDF, or is corrupt"),
        (encrypted(), "the document is encrypted"),
        ("nowhere.pdf", "there is no document file 'nowhere.pdf'"),
    ],
)
async def test_what_cannot_be_opened_is_refused(source: Any, says: str) -> None:
    with pytest.raises(InvalidMedia, match=says):
        await draw(source)
    with pytest.raises(InvalidMedia, match=says):
        pages(source)


@pytest.mark.parametrize(
    ("number", "dpi", "says"),
    [
        (0, 72, "has 2 pages, but page 0 is asked for"),
        (3, 72, "has 2 pages, but page 3 is asked for"),
        (1, 0, "dpi must be at least 1, but is 0"),
    ],
)
async def test_pages_that_are_not_there_are_refused(number: int, dpi: int, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        await draw(pdf(1, 2), number, dpi)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_pages": 2}, "may have at most 2 pages, but has 3"),
        ({"max_document_bytes": 100}, "a document may have at most 100 bytes"),
        ({"max_pixels": 1000}, r"page 1 has 10,368 at 72 dpi \(144 x 72\)"),
    ],
)
async def test_limits(limits: dict[str, Any], says: str) -> None:
    with pytest.raises(MediaTooLarge, match=says):
        await draw(pdf(1, 2, 3), policy=replace(LOCAL, **limits))


async def test_strangers_name_no_files() -> None:
    with pytest.raises(MediaNotAllowed, match="a document must be a data URI"):
        await draw("/etc/hostname", policy=MediaPolicy.server())


async def test_a_long_document_is_drawn_page_by_page(fake: Embedder) -> None:
    source = pdf(*(number % 256 for number in range(300)), size=(36, 36))
    found = pages(source, dpi=72)
    assert len(found) == 300
    vectors = await fake.aembed([EmbedInput.of(page) for page in found])
    assert len(vectors) == 300
    assert not np.array_equal(vectors[0].vector, vectors[1].vector)
    np.testing.assert_array_equal(vectors[0].vector, vectors[256].vector)  # equal greys, equal pages
