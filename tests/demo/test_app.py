"""The page's handlers and addresses, without a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest

from mllm_embed_demo import app as module
from mllm_embed_demo import view
from mllm_embed_demo.app import AUTOMATIC, FULL, OWN, Asked
from mllm_embed_demo.client import EmbeddingsClient
from mllm_embed_demo.pictures import Picture
from mllm_embed_demo.search import Playground

pytestmark = pytest.mark.fast

REQUEST: Any = type("Request", (), {"headers": {"host": "127.0.0.1:7860"}})()


@pytest.fixture
async def page(playground: Playground) -> Any:
    with gr.Blocks(analytics_enabled=False):
        return module._Page(playground)


def search(page: Any, text: str = "", image: str | None = None, **changes: Any) -> dict[Any, Any]:
    options = {"task": AUTOMATIC, "instruction": "", "dimensions": FULL, "count": 6, "asked": Asked(), **changes}
    update: dict[Any, Any] = page.on_search(text, image, *options.values(), REQUEST)
    return update


def test_a_search_fills_every_part(page: Any) -> None:
    update = search(page, "a cat")
    assert update[page.message] == ""
    assert update[page.results].count('class="me-card"') == 5
    assert "Best 5 of 5 for “a cat”" in update[page.results]
    assert "query embedded in" in update[page.status]
    assert update[page.instruction] == "Find the picture that shows this."
    assert "http://127.0.0.1:7860/pictures/" in update[page.python]
    assert "/v1/embeddings" in update[page.curl]


def test_an_own_instruction_is_used_as_it_is(page: Any) -> None:
    assert search(page, "a cat", task=OWN, instruction="Mine.")[page.instruction] == "Mine."
    assert '"instruction": "Mine."' in search(page, "a cat", task=OWN, instruction="Mine.")[page.curl]


def test_the_words_of_the_last_query_are_bars(page: Any) -> None:
    assert page.on_words(Asked()) == ""
    shown = page.on_words(search(page, "aaaa cat", task=OWN, instruction="")[page.asked])
    words = re.findall(r'me-word">([^<]+)<.*?width:(\d+)%.*?me-number">([\d.]+)<', shown)
    assert words[0][:2] == ("a", "100")
    assert [int(width) for _, width, _ in words] == sorted((int(width) for _, width, _ in words), reverse=True)


def test_words_are_escaped_and_none_show_nothing() -> None:
    assert view.words({}) == ""
    assert "&lt;b&gt;" in view.words({"<b>": 1.0})


def test_moves_are_told_when_only_the_instruction_changed(page: Any) -> None:
    first = search(page, "a cat")
    again = search(page, "a cat", task=OWN, instruction="Sort by colour.", asked=first[page.asked])
    assert "me-move" not in first[page.results]
    assert "me-move" in again[page.results]
    other = search(page, "a dog", task=OWN, instruction="Sort by colour.", asked=first[page.asked])
    assert "me-move" not in other[page.results]


@pytest.mark.parametrize("text", ["", "   \n"])
def test_an_empty_query_is_told_and_nothing_is_lost(page: Any, text: str) -> None:
    update = search(page, text)
    assert set(update) == {page.message}
    assert "Nothing to search for yet: type a text, add a picture, or both." in update[page.message]
    assert page.on_option(text, None, AUTOMATIC, "", FULL, 6, Asked(), REQUEST) == {page.message: ""}


def test_a_bad_picture_is_told_and_nothing_is_lost(page: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    update = search(page, "a cat", str(bad))
    assert set(update) == {page.message}
    assert "format must be one of" in update[page.message]
    assert str(tmp_path) not in update[page.message]


def test_an_api_that_is_gone_is_told_and_nothing_is_lost(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    search(page, "a cat")
    with EmbeddingsClient("http://api", transport=httpx.MockTransport(gone)) as client:
        monkeypatch.setattr(page.playground, "client", client)
        update = search(page, "a cat")
        assert set(update) == {page.message}
        assert "The API at http://api cannot be reached" in update[page.message]
        *_, shown = page.on_load()
        assert "Not connected" in shown[page.status]
        assert "The gallery" in shown[page.results]


def test_a_width_that_the_server_refuses_is_told_in_its_words(page: Any) -> None:
    update = search(page, "a cat", dimensions=17)
    assert set(update) == {page.message}
    assert "16, 32, 64" in update[page.message]


def test_what_users_write_is_escaped(page: Any) -> None:
    results = search(page, "<script>alert(1)</script>", task=OWN, instruction="<b>")[page.results]
    assert "<script>" not in results
    assert "<b>" not in results
    assert "&lt;script&gt;" in results


def test_loading_offers_the_models_widths(page: Any) -> None:
    *_, update = page.on_load()
    assert update[page.dimensions].choices == [("64 (full)", 0), ("32", 32), ("16", 16)]
    assert "5 pictures" in update[page.status]


def test_more_like_this_hands_over_the_picture_as_it_is_sent(page: Any, pictures: list[Picture]) -> None:
    event = type("Event", (), {"_data": {"key": pictures[1].key}})()
    text, path = page.on_more_like_this(event)
    assert text == ""
    assert Path(path).read_bytes() == pictures[1].payload().data
    assert page.on_more_like_this(type("Event", (), {"_data": {"key": "../../etc/passwd"}})()) == ("", None)


def test_the_addresses_serve_pictures_and_nothing_else(page_url: str, pictures: list[Picture]) -> None:
    with httpx.Client(base_url=page_url, trust_env=False) as http:
        picture = http.get(f"/pictures/{pictures[0].key}")
        assert (picture.content, picture.headers["content-type"]) == (pictures[0].payload().data, "image/png")
        thumbnail = http.get(f"/thumbnails/{pictures[0].key}")
        assert thumbnail.headers["content-type"] == "image/webp"
        for path in (
            "/pictures/none",
            "/thumbnails/none",
            "/pictures/..%2f..%2fetc%2fpasswd",
            "/docs",
            "/openapi.json",
        ):
            assert http.get(path).status_code == 404, path
        pictures[1].path.write_bytes(b"broken")
        assert http.get(f"/pictures/{pictures[1].key}").status_code == 404
        assert http.get(f"/thumbnails/{pictures[1].key}").status_code == 404
        assert http.get(f"/gradio_api/file={pictures[0].path}").status_code == 403


def test_the_page_asks_no_other_host_for_anything(shared_url: str) -> None:
    html = httpx.get(shared_url, trust_env=False).text
    assert "mllm-embed playground" in html
    for tag in ("fonts.googleapis", "fonts.gstatic", "cdnjs", '<script src="http', 'href="https://fonts'):
        assert tag not in html
