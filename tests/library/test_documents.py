"""PDFs that are made here: pages as pictures, and what is refused."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mllm_embed import documents, media
from mllm_embed.documents import pages
from mllm_embed.embedder import Embedder
from mllm_embed.errors import InvalidInput, InvalidMedia, MediaNotAllowed, MediaTooLarge
from mllm_embed.media import MediaPolicy
from mllm_embed.types import Document, EmbedInput, Image, Page

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
async def test_pages_that_are_not_there_are_refused(fake: Embedder, number: int, dpi: int, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        await draw(pdf(1, 2), number, dpi)
    with pytest.raises(InvalidInput, match=says) as caught:
        await fake.aembed([EmbedInput.of("x"), EmbedInput.of(Document(pdf(1, 2), (1, number), dpi))])
    assert caught.value.index == 1


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


async def test_documents_that_wait_hold_up_no_pictures() -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(buffer, "PNG")
    with documents._PDFIUM:  # as a page does that takes long to draw
        waiting = [asyncio.ensure_future(draw(pdf(1))) for _ in range(64)]
        await asyncio.sleep(0.01)
        assert (await asyncio.wait_for(media.load(Image(buffer.getvalue()), LOCAL), 10)).size == (8, 8)
        assert not any(task.done() for task in waiting)
    assert len(await asyncio.gather(*waiting)) == 64


async def test_a_long_document_is_drawn_page_by_page(fake: Embedder) -> None:
    source = pdf(*(number % 256 for number in range(300)), size=(36, 36))
    found = pages(source, dpi=72)
    assert len(found) == 300
    vectors = await fake.aembed([EmbedInput.of(page) for page in found])
    assert len(vectors) == 300
    assert not np.array_equal(vectors[0].vector, vectors[1].vector)
    np.testing.assert_array_equal(vectors[0].vector, vectors[256].vector)  # equal greys, equal pages


@pytest.mark.parametrize(("numbers", "same"), [(None, (1, 2, 3)), ((3, 1), (3, 1)), ((2, 2), (2, 2))])
async def test_a_document_is_its_pages_in_order(
    fake: Embedder, tmp_path: Path, numbers: tuple[int, ...] | None, same: tuple[int, ...]
) -> None:
    (tmp_path / "three.pdf").write_bytes(pdf(0, 100, 200))
    for source in (pdf(0, 100, 200), str(tmp_path / "three.pdf")):
        whole, by_page = await fake.aembed(
            [
                EmbedInput.of("before", Document(source, numbers), "after"),
                EmbedInput.of("before", *(Page(source, number) for number in same), "after"),
            ]
        )
        np.testing.assert_array_equal(whole.vector, by_page.vector)


async def test_more_pages_than_an_input_may_hold_are_refused(fake: Embedder) -> None:
    says = "at most 16 images, pages of documents among them, but holds 17"
    for numbers in (None, tuple(range(1, 18))):
        with pytest.raises(InvalidInput, match=says):
            await fake.aembed([EmbedInput.of(Document(pdf(*range(17)), numbers))])


def test_a_document_has_a_page() -> None:
    with pytest.raises(InvalidInput, match="must be at least one"):
        Document(b"", ())


async def test_5000_pages_are_refused(fake: Embedder) -> None:
    """The real limit; all that is made of so many pages is a tree that says so."""
    kids = b" ".join([b"3 0 R"] * 5000)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count 5000 /Kids [" + kids + b"] >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 72 72] >>",
    ]
    body = b"".join(b"%d 0 obj %s endobj\n" % (number, content) for number, content in enumerate(objects, 1))
    many = b"%PDF-1.4\n" + body + b"trailer << /Root 1 0 R /Size 4 >>\n%%EOF"
    with pytest.raises(MediaTooLarge, match="at most 1,000 pages, but has 5,000"):
        pages(many)
    with pytest.raises(MediaTooLarge, match="at most 1,000 pages, but has 5,000"):
        await fake.aembed([EmbedInput.of(Document(many, (1,)))])
