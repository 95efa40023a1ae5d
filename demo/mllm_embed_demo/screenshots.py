"""Take the screenshots of the documentation from a running playground.

python -m mllm_embed_demo.screenshots --url http://127.0.0.1:7860 --out docs/images
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDE: ViewportSize = {"width": 1280, "height": 900}
NARROW: ViewportSize = {"width": 420, "height": 900}
LOADED = "() => [...document.images].every((image) => image.loading === 'lazy' || image.complete)"
SECONDS = 1000
PATIENCE_MS = 60 * SECONDS


def find_chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome, if there is one."""
    names = "chromium", "chromium-browser", "google-chrome"
    return next((path for name in names if (path := shutil.which(name)) is not None), None)


def take(url: str, out: Path, chromium: str) -> None:
    """Search as a visitor would, and write three PNG files.

    Args:
        url: the playground, with its built-in gallery.
        out: folder for `playground-text.png`, `playground-both.png` and `playground-narrow.png`.
        chromium: the browser's path.
    """
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport=WIDE)
        _search_text(page, url, "umbrella")
        _save(page, out / "playground-text.png")
        page.get_by_role("button", name="this shape, but red").click()
        page.get_by_text("and your picture").wait_for(timeout=PATIENCE_MS)
        _save(page, out / "playground-both.png")
        page = browser.new_page(viewport=NARROW)
        _search_text(page, url, "umbrella")
        _save(page, out / "playground-narrow.png")
        browser.close()


def _search_text(page: Page, url: str, text: str) -> None:
    page.goto(url)
    page.locator(".me-card").first.wait_for(timeout=PATIENCE_MS)
    page.get_by_label("Text", exact=True).fill(text)
    page.keyboard.press("Enter")
    page.locator(".me-rank").first.wait_for(timeout=PATIENCE_MS)


def _save(page: Page, file: Path) -> None:
    page.wait_for_function(LOADED)
    page.wait_for_timeout(SECONDS)  # smooth scrolling and the fading of Gradio's spinner
    page.screenshot(path=file)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Take the playground's screenshots.")
    parser.add_argument("--url", default="http://127.0.0.1:7860", help="the running playground")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder for the PNG files")
    parser.add_argument("--chromium", default=find_chromium(), help="path of the browser")
    options = parser.parse_args()
    if options.chromium is None:
        parser.error("no Chromium found: install one, or name it with --chromium")
    take(options.url, options.out, options.chromium)


if __name__ == "__main__":
    main()
