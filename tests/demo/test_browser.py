"""The playground in a real browser, as a new visitor uses it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import PIL.Image
import pytest

from mllm_embed_demo.screenshots import FLAGS, NARROW, WIDE, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from mllm_embed_demo.search import Playground

sync_api = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Gradio calls pandas in ways that pandas deprecates
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, shared_url: str) -> Iterator[Page]:
    """The page as it opens; nothing may be asked of another host, and nothing may go wrong in the browser."""
    page = browser.new_page(viewport=WIDE)
    page.set_default_timeout(PATIENCE_MS)
    foreign: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if _is_foreign(request.url, shared_url) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(shared_url)
    page.get_by_text("5 pictures", exact=True).wait_for()
    yield page
    page.close()
    assert foreign == []
    assert errors == []


def _is_foreign(url: str, own: str) -> bool:
    return not url.startswith((own, "data:", "blob:"))


def search(page: Page, text: str) -> list[str]:
    """Type a text, press Enter, and return the titles in their order."""
    page.get_by_label("Text", exact=True).fill(text)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=f"“{text}”").wait_for()
    return ranking(page)


def ranking(page: Page) -> list[str]:
    return page.locator(".me-title").all_inner_texts()


def test_a_visitor_searches_changes_the_instruction_and_copies_the_code(page: Page, shared: Playground) -> None:
    first = search(page, "a cat")
    assert sorted(first) == [f"Picture {number}" for number in range(5)]
    scores = [float(text) for text in page.locator(".me-number").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    sync_api.expect(page.locator(".me-status")).to_contain_text("query embedded in")

    words = page.locator("#words")
    words.get_by_role("heading", name="What the model reads in it").wait_for()
    sync_api.expect(words.get_by_role("listitem")).to_have_count(8)
    before = words.inner_text()

    page.locator("#instruction textarea").fill("Sort by colour, please.")
    page.keyboard.press("Enter")
    page.get_by_text("Instruction: Sort by colour, please.").wait_for()
    assert ranking(page) != first
    assert page.locator(".me-move").count() > 0
    sync_api.expect(words).not_to_have_text(before, use_inner_text=True)

    page.get_by_role("tab", name="Python").click()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#python").get_by_role("button", name="Copy").click()
    script = page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.partition("  ")[2] for line in done.stdout.splitlines()] == ranking(page)


def test_a_visitor_searches_by_an_uploaded_picture_and_by_both(page: Page, shared: Playground) -> None:
    page.locator("#image input[type=file]").set_input_files(shared.pictures[3].path)
    page.get_by_role("heading", name="your picture").wait_for()
    assert ranking(page)[0] == "Picture 3"
    sync_api.expect(page.locator("#instruction textarea")).to_have_value("Find another picture of the same thing.")
    page.get_by_label("Text", exact=True).fill("but red")
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_role("heading", name="“but red” and your picture").wait_for()
    sync_api.expect(page.locator("#instruction textarea")).to_have_value("Find this picture with the change applied.")


def test_a_visitor_asks_for_more_like_one_result(page: Page) -> None:
    search(page, "a cat")
    wanted = ranking(page)[2]
    page.get_by_role("button", name=f"Find pictures like {wanted}").click()
    page.get_by_role("heading", name="your picture").wait_for()
    assert ranking(page)[0] == wanted
    sync_api.expect(page.get_by_label("Text", exact=True)).to_have_value("")


def test_errors_are_sentences_and_lose_nothing(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Playground
) -> None:
    alert = page.get_by_role("alert").filter(has_text=".")
    page.get_by_role("button", name="Search", exact=True).click()
    sync_api.expect(alert).to_have_text("Nothing to search for yet: type a text, add a picture, or both.")
    found = search(page, "a cat")
    sync_api.expect(alert).to_have_count(0)

    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.locator("#image input[type=file]").set_input_files(tmp_path / "broken.png")
    sync_api.expect(alert).to_contain_text("format must be one of")
    assert ranking(page) == found
    page.get_by_role("button", name="Remove Image").or_(page.get_by_label("Clear")).first.click()

    def gone(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError("no")

    with monkeypatch.context() as patch:
        patch.setattr(shared.client._http, "request", gone)
        page.get_by_label("Text", exact=True).fill("a dog")
        page.keyboard.press("Enter")
        sync_api.expect(alert).to_contain_text("cannot be reached")
        assert ranking(page) == found
        sync_api.expect(page.get_by_label("Text", exact=True)).to_have_value("a dog")
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_role("heading", name="“a dog”").wait_for()


def test_the_width_of_vectors_and_the_task_can_be_chosen(page: Page) -> None:
    search(page, "a cat")
    page.get_by_label("Dimensions").click()
    page.get_by_role("option", name="16").click()
    page.get_by_text("(16 numbers)").wait_for()
    page.get_by_label("Task").click()
    page.get_by_role("option", name="document:").click()
    page.get_by_text("Instruction: Find the document page that answers this.").wait_for()


def test_a_narrow_screen_needs_no_sideways_scrolling(page: Page) -> None:
    page.set_viewport_size(NARROW)
    search(page, "a cat with a very long name " + "o" * 80)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    sync_api.expect(page.locator(".me-rank").first).to_be_in_viewport()


def test_every_control_and_picture_has_a_name(page: Page, draw: Callable[..., PIL.Image.Image]) -> None:
    search(page, "a cat")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, img')]
        .filter((e) => e.offsetParent && !(e.getAttribute('aria-label') || e.innerText || e.alt || e.title
            || e.labels?.length || e.closest('label')))
        .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
