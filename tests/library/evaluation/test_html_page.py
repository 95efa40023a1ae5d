from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mllm_embed.evaluation.eval_types import EvaluationError
from mllm_embed.evaluation.gallery import Histogram, Hit, Point, Shown, Strip, TaskGallery, VectorMap
from mllm_embed.evaluation.html_page import histogram_path, html_page, polygon, radar_limit, spokes, task_rows
from mllm_embed_demo.screenshots import FLAGS, NARROW, find_chromium
from tests.library.evaluation.test_report import report, result
from tests.library.evaluation.test_scores_page import in_languages, perturbed

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.fast

DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
SHOWN = Shown((DOT, DOT), "<b>two frames</b>")
HIT = Hit(SHOWN, 0.5, right=True)
STRIP = Strip("noto", "Find it.", SHOWN, HIT, 7, 1000, (Hit(SHOWN, 0.6, right=False), HIT))
GALLERY = TaskGallery("x", (STRIP,), (STRIP,), Histogram(0.1, 0.9, (1, 2, 3), (0, 4, 1)))
MAP = VectorMap((Point(0.5, 0.5, True, SHOWN), Point(0.1, 0.2, False, None)), (0.3, 0.1))


def several(name: str, scale: float = 1.0) -> dict[str, Any]:
    return report(name, x=result(0.5 * scale), y=result(0.25 * scale, meta="VQA"), z=result(0.75 * scale, meta="video"))


def page() -> str:
    return html_page([several("one"), several("<script>other</script>", 0.5)], galleries=[GALLERY], vectors=MAP)


class Reader(HTMLParser):
    """Collects tags, what they refer to, and text; complains about tags that do not match."""

    EMPTY = frozenset(("meta", "img", "br", "line", "circle", "polygon", "path", "image", "link"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_the_page_refers_to_nothing_outside() -> None:
    found = read(page())
    assert "script" not in found.tags
    assert found.sources
    assert all(source.startswith(("data:", "#")) for source in found.sources)
    assert "url(" not in page()
    assert "@import" not in page()


def test_names_and_texts_are_text() -> None:
    text = page()
    assert "<b>two frames</b>" not in text
    assert "&lt;b&gt;two frames" in text
    assert "<script>other" not in text


def test_scores_intervals_and_chance_stand_there() -> None:
    words = read(page()).words
    for expected in ("0.500", "0.250", "rank 7 of 1,000 · cos 0.50", "mean over meta-tasks", "modality gap"):
        assert expected in words
    row = task_rows([several("one"), several("other", 0.5)])[0]
    assert [(bar.value, bar.low, bar.high) for bar in row.bars] == [(0.5, 0.4, 0.6), (0.25, 0.15, 0.35)]
    assert (row.name, row.chance, row.pool, row.queries) == ("x", 0.01, "100", 40)


def test_a_mean_over_fewer_tasks_is_not_shown() -> None:
    text = html_page([several("one"), report("other", x=result(0.5))])
    words = read(text).words
    assert "did only 1 of the tasks: a mean over them would not be comparable" in words
    assert text.count('<div class="big">-</div>') == 2
    assert words.count("mean over tasks") == 3  # a card per model, and the table
    assert "Map of the candidates" not in words


def test_what_was_measured_robustness_and_languages_stand_there() -> None:
    found = report("one", **several("one")["results"], r=perturbed(0.75, 0.25), l=in_languages(de=0.5))
    words = read(html_page([found])).words
    for expected in (
        "fingerprint",
        "most frames of a clip",
        "0.750 → 0.250 (-0.500 ± 0.100)",
        "Languages",
        "de",
        "12,346",
    ):
        assert expected in words
    assert [bar.clean for row in task_rows([found]) for bar in row.bars] == [None, None, None, 0.75, None]


def test_a_run_of_robustness_alone_has_no_means() -> None:
    text = html_page([report("one", r=perturbed(0.75, 0.25))])
    assert text.count('<div class="big">-</div>') == 2
    assert "0 tasks and 1 of robustness" in text


def test_a_smoke_run_says_so() -> None:
    small = several("one")
    small["settings"]["limit_pool"] = 20
    assert "cut to 20" in html_page([small])


def test_runs_on_other_data_are_refused() -> None:
    other = several("other")
    other["data"] = {"a.parquet": "2"}
    with pytest.raises(EvaluationError, match=r"different versions of a\.parquet"):
        html_page([several("one"), other])
    with pytest.raises(EvaluationError, match="at least one report"):
        html_page([])


def test_the_radar_starts_at_the_top_and_goes_round() -> None:
    corners = [float(number) for point in polygon([1, 0.5, 1, 0]).split() for number in point.split(",")]
    assert corners == [0, -150, 75, 0, 0, 150, 0, 0]
    assert [one.anchor for one in spokes(["a", "b", "c", "d"])] == ["middle", "start", "middle", "end"]


@pytest.mark.parametrize(("most", "limit"), [(0.05, 0.1), (0.1, 0.1), (0.33, 0.5), (1.0, 1.0)])
def test_low_scores_fill_the_radar_too(most: float, limit: float) -> None:
    assert radar_limit([[0.0, most], []]) == limit
    assert radar_limit([[]]) == 1.0


def test_numbers_stand_to_the_right() -> None:
    assert '<td>fingerprint</td><td class="n">one</td>' in page()
    assert "&#34;" not in page()


def test_a_histogram_fills_its_picture() -> None:
    path = histogram_path((1, 2), 2, 100, 50)
    assert path == "M0,50.0 L0.0,25.0 L50.0,25.0 L50.0,0.0 L100.0,0.0 L100.0,50.0 Z"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.mark.browser
def test_a_browser_shows_it_on_a_telephone_without_asking_the_network(browser: "Browser", tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page(), encoding="utf-8")
    tab = browser.new_page(viewport=NARROW)
    asked: list[str] = []
    errors: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(file.as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert errors == []
    assert tab.evaluate("document.body.scrollWidth <= window.innerWidth")
    bars = tab.locator(".fill").evaluate_all("all => all.map(bar => bar.getBoundingClientRect().width)")
    tracks = tab.locator(".track").evaluate_all("all => all.map(track => track.getBoundingClientRect().width)")
    shares = [bar / track for bar, track in zip(bars, tracks, strict=True)]
    assert shares == pytest.approx([0.5, 0.25, 0.25, 0.125, 0.75, 0.375], abs=0.01)
