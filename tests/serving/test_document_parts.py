"""PDFs in requests: the library's own vectors, for a document or for each of its pages, and what is refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mllm_embed.embedder import Embedder
from mllm_embed.long_inputs import embed_document, mean
from mllm_embed.types import Document, EmbedInput
from mllm_embed.vectors import finish
from mllm_embed_serving.settings import ServerSettings
from tests.error_shape import check_error
from tests.library.test_documents import encrypted, pdf

pytestmark = pytest.mark.fast

Post = Callable[..., Any]
THREE = pdf(0, 100, 200)
LONG = pdf(*range(18), size=(36, 36))


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(max_document_bytes=100_000, max_document_pages=19, max_images=20, max_image_pixels=200_000)


def part(data: bytes = THREE, **more: Any) -> dict[str, Any]:
    return {"type": "document_base64", "document_base64": base64.b64encode(data).decode(), **more}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


async def test_a_document_gives_the_library_s_vector(ask: Post, embedder: Embedder) -> None:
    uri = f"data:application/pdf;base64,{part()['document_base64']}"
    item = EmbedInput.of("before", Document(THREE, (3, 1), 72), "after")
    (expected,) = await embedder.aembed([item])
    for written in (
        part(pages=[3, 1], dpi=72),
        {"type": "document_url", "document_url": {"url": uri}, "pages": [3, 1], "dpi": 72},
        {"type": "document_url", "document_url": uri, "pages": [3, 1], "dpi": 72},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": uri}, "pages": [3, 1], "dpi": 72},
    ):
        (found,) = (await ask("/v1/embeddings", input=[[text("before"), written, text("after")]]))["data"]
        np.testing.assert_array_equal(np.float32(found["embedding"]), expected.vector)
        assert "pages" not in found


async def test_every_dialect_takes_documents(ask: Post) -> None:
    (ours,) = (await ask("/v1/embeddings", input=[[part()]], input_type="document"))["data"]
    message = [{"role": "user", "content": [part()]}]
    (chat,) = (await ask("/v1/embeddings", messages=message, input_type="document"))["data"]
    assert chat["embedding"] == ours["embedding"]
    cohere = await ask("/v2/embed", inputs=[{"content": [part()]}], input_type="search_document")
    assert cohere["embeddings"]["float"] == [ours["embedding"]]
    voyage = await ask("/v1/multimodalembeddings", inputs=[{"content": [part()]}], input_type="document")
    assert voyage["data"][0]["embedding"] == ours["embedding"]
    ranked = (await ask("/v1/rerank", query=[part()], documents=["a", [part()]]))["results"]
    assert ranked[0]["index"] == 1


async def test_what_is_asked_of_a_document_is_told_apart_by_the_cache(ask: Post) -> None:
    parts = [part(), part(pages=[1, 2, 3]), part(pages=[3]), part(pages=[1, 2]), part(pages=[2, 1]), part(dpi=300)]
    first = [row["embedding"] for row in (await ask("/v1/embeddings", input=[[one] for one in parts]))["data"]]
    assert first[0] == first[1]
    assert len({tuple(vector) for vector in first}) == len(parts) - 1
    again = [row["embedding"] for row in (await ask("/v1/embeddings", input=[[one] for one in parts]))["data"]]
    assert again == first


async def test_both_ways_to_read_a_document_are_told_apart_in_flight(ask: Post) -> None:
    together, apart = await asyncio.gather(
        *(ask("/v1/embeddings", input=[[part()]], vector_per=kind) for kind in ("document", "page"))
    )
    assert "pages" not in together["data"][0]
    assert len(apart["data"][0]["pages"]) == 3


@pytest.mark.parametrize("width", [None, 16])
async def test_a_vector_per_page_is_the_library_s(ask: Post, embedder: Embedder, width: int | None) -> None:
    expected = await asyncio.to_thread(embed_document, embedder, LONG)
    answer = await ask("/v1/embeddings", input=["a text", [part(LONG)]], vector_per="page", dimensions=width)
    words, found = answer["data"]
    np.testing.assert_allclose(found["pages"], finish(expected, width), atol=1e-6)
    np.testing.assert_allclose(found["embedding"], finish(mean(expected), width), atol=1e-6)
    assert "pages" not in words
    (alone,) = (await ask("/v1/embeddings", input=[[part(LONG, pages=[4])]], vector_per="page"))["data"]
    np.testing.assert_allclose(alone["pages"], expected[3:4], atol=1e-6)
    (again,) = (await ask("/v1/embeddings", input=[[part(LONG, pages=[4])]], vector_per="page"))["data"]
    assert again == alone


async def test_pages_are_written_as_vectors_are(ask: Post) -> None:
    (found,) = (await ask("/v1/embeddings", input=[[part()]], vector_per="page", encoding_format="base64"))["data"]
    assert [len(base64.b64decode(vector)) for vector in found["pages"]] == [64 * 4] * 3


@pytest.mark.parametrize(
    ("more", "code", "param", "says"),
    [
        ({"document_base64": None}, "invalid_parameter", "input[1][0].document_base64", "must be a string"),
        ({"document_base64": "data:;base64,"}, "invalid_image", "input[1]", "the document is empty (0 bytes)"),
        ({"document_base64": "/etc/passwd"}, "invalid_parameter", "input[1][0].document_base64", "never read"),
        ({"document_base64": "file:///etc/a.pdf"}, "media_not_allowed", "input[1]", "must be a data URI, base64"),
        ({"document_base64": "https://example.org/a"}, "media_not_allowed", "input[1]", "URLs are not allowed"),
        ({"pages": 1}, "invalid_parameter", "input[1][0].pages", "must be an array of page numbers"),
        ({"pages": []}, "invalid_parameter", "input[1][0].pages", "must not be an empty array"),
        ({"pages": [1, 0]}, "invalid_parameter", "input[1][0].pages[1]", "must be at least 1, but is 0"),
        ({"pages": [None]}, "invalid_parameter", "input[1][0].pages[0]", "must be a page number"),
        ({"pages": [4]}, "invalid_input", "input[1]", "has 3 pages, but page 4 is asked for"),
        ({"pages": [1] * 17}, "invalid_input", "input[1]", "at most 16 images, pages of documents among them"),
        ({"pages": [1] * 21}, "invalid_parameter", "input", "at most 20 images per request, but holds 21"),
        ({"dpi": 0}, "invalid_parameter", "input[1][0].dpi", "must be at least 1"),
        ({"dpi": 10**400}, "invalid_parameter", "input[1][0].dpi", "may be at most 600"),
        ({"dpi": 600}, "image_too_large", "input[1]", "at most 200,000 pixels, but page 1 has 720,000 at 600 dpi"),
    ],
)
async def test_a_document_that_cannot_be_read_is_refused(
    embed: Post, more: dict[str, Any], code: str, param: str, says: str
) -> None:
    answer = await embed(input=["a", [{**part(), **more}]])
    check_error(answer.json(), answer.status_code, expected=400, code=code, param=param, says=says)


@pytest.mark.parametrize("vector_per", ["document", "page"])
@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"x", "invalid_image", "the document is not a PDF, or is corrupt"),
        (THREE[:200], "invalid_image", "the document is not a PDF, or is corrupt"),
        (encrypted(), "invalid_image", "the document is encrypted"),
        (pdf(*range(20), size=(2, 2)), "image_too_large", "at most 19 pages, but has 20"),
        (b"x" * 100_001, "image_too_large", "at most 100,000 bytes"),
    ],
)
async def test_bytes_that_are_no_document_are_refused(
    embed: Post, data: bytes, code: str, says: str, vector_per: str
) -> None:
    answer = await embed(input=["a", [part(data)]], vector_per=vector_per)
    check_error(answer.json(), answer.status_code, expected=400, code=code, param="input[1]", says=says)


async def test_pages_that_nobody_counted_are_counted(embed: Post) -> None:
    answer = await embed(input=[[part(LONG)], [part(THREE)]], vector_per="page")
    later = answer.json()["error"]["param"]  # that of the document which is opened last
    assert later in ("input[0]", "input[1]")
    check_error(
        answer.json(), answer.status_code, expected=400, code="invalid_input", param=later, says="at most 20 images"
    )


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"vector_per": "word"}, "vector_per", "must be one of 'document', 'page'"),
        ({"outputs": ["lexical"]}, "outputs", "one dense vector each, and nothing else"),
        ({"input": ["a", [part(), text("b")]]}, "input[1]", "must hold one document and nothing else"),
    ],
)
async def test_what_has_no_vector_per_page_is_refused(embed: Post, body: dict[str, Any], param: str, says: str) -> None:
    answer = await embed(**{"input": [[part()]], "vector_per": "page", **body})
    check_error(answer.json(), answer.status_code, expected=400, code="invalid_parameter", param=param, says=says)


async def test_a_bad_document_spares_the_others(embed: Post) -> None:
    answer = (await embed(input=[[part(b"x")], [part()]], vector_per="page", partial=True)).json()["data"]
    assert answer[0]["error"]["code"] == "invalid_image"
    assert len(answer[1]["pages"]) == 3
