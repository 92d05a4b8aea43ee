"""The site as a reader meets it: opened from the disk or served, with the network cut."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from hgsr_lite.series.site import build_site

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(900)  # the first test waits for the site to be built
LARGEST_PAGE = 3_000_000  # bytes, with all that the page loads


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(REPOSITORY, tmp_path_factory.mktemp("build here")).parent


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line for each on the terminal."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module", params=["from the disk", "served"])
def address(request: pytest.FixtureRequest, site: Path) -> Iterator[str]:
    if request.param == "from the disk":
        yield site.as_uri()
        return
    handler = functools.partial(QuietHandler, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page()
    page.complaints, page.loaded = [], {}
    page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.loaded.setdefault(request.url, request))
    yield page
    page.close()


def pages_of(site: Path) -> list[str]:
    return sorted(str(path.relative_to(site)) for path in site.rglob("*.html") if path.name[0] != "_")


def test_every_page_opens_asks_for_nothing_outside_and_complains_of_nothing(page, address, site):
    for name in pages_of(site):
        page.loaded.clear()
        page.goto(f"{address}/{name}")
        outside = [url for url in page.loaded if not url.startswith((address, "data:", "blob:"))]
        assert not outside, (name, outside)
    assert page.complaints == []


def test_no_page_is_heavy(page, address, site):
    for name in pages_of(site):
        page.loaded.clear()
        page.goto(f"{address}/{name}")
        files = [site / url.removeprefix(f"{address}/").split("?")[0].split("#")[0] for url in page.loaded]
        size = sum(path.stat().st_size for path in files if path.is_file())
        assert size < LARGEST_PAGE, (name, size)


def test_every_picture_is_told_in_words(browser: Browser, site: Path):
    """Not by its file's name, which Sphinx writes where a notebook's cell has its text elsewhere."""
    page = browser.new_page(java_script_enabled=False)
    told: dict[str, str | None] = {}
    for name in pages_of(site):
        page.goto(f"{site.as_uri()}/{name}")
        for picture in page.locator("article img").all():
            told[f"{name}: {(picture.get_attribute('src') or '')[:60]}"] = picture.get_attribute("alt")
    page.close()
    assert len(told) > 40
    assert not {place: alt for place, alt in told.items() if " " not in (alt or "")}


def test_the_front_page_trains_at_once_with_the_network_cut(page, address):
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(f"{address}/index.html", wait_until="networkidle")  # a page icon may come last
    page.context.set_offline(True)
    train = page.get_by_role("button", name="Train")
    assert train.bounding_box()["y"] < 600  # seen without scrolling
    numbers, kernels = page.locator(".hgsr .facts").first, page.locator(".hgsr canvas").first
    before, picture = numbers.inner_text(), kernels.screenshot()
    train.click()
    page.wait_for_function(
        "!document.querySelector('.hgsr .facts').textContent.includes('–')", timeout=120_000
    )
    assert numbers.inner_text() != before
    assert kernels.screenshot() != picture
    page.context.set_offline(False)
    assert page.complaints == []


def test_two_tabs_train_side_by_side_to_the_numbers_of_one_alone(browser: Browser, address: str):
    tabs = browser.new_context()
    alone, first, second = (tabs.new_page() for _ in range(3))
    for tab, strength in ((alone, "1e-4"), (first, "1e-4"), (second, "0.03")):
        tab.goto(f"{address}/index.html#epochs=2&strength={strength}")
    train(alone)
    wait_until_trained(alone)
    for tab in (first, second):
        train(tab)
    for tab in (first, second):
        wait_until_trained(tab)
    assert numbers(first) == numbers(alone)
    assert numbers(second) != numbers(alone)
    assert first.url.split("#")[1] != second.url.split("#")[1]
    assert [tab.locator(".hgsr tbody tr").count() for tab in (first, second)] == [1, 1]
    tabs.close()


def train(page: Page) -> None:
    page.get_by_role("button", name="Train").click()


def wait_until_trained(page: Page) -> None:
    status = "document.querySelector('.hgsr [role=status]').textContent"
    page.wait_for_function(f"{status}.includes('finished after epoch 2')", timeout=120_000)


def numbers(page: Page) -> list[str]:
    """The figures of the last run, as its row of the table says them."""
    return page.locator(".hgsr tbody tr").last.locator("td").all_inner_texts()


def test_a_control_moved_in_one_tab_stays_where_it_was_in_the_other(browser: Browser, address: str):
    tabs = browser.new_context()
    first, second = tabs.new_page(), tabs.new_page()
    for tab in (first, second):
        tab.goto(f"{address}/02_norms_that_make_zeros.html")
        tab.locator("section.hgsr").scroll_into_view_if_needed()
    words, picture = said(second), second.locator("section.hgsr svg").first.screenshot()
    first.get_by_role("slider", name="kernels a and b").focus()
    for _ in range(3):
        first.keyboard.press("ArrowLeft")
    assert said(first) != words
    for tab in (second, first):
        tab.wait_for_timeout(500)
    assert said(second) == words
    assert second.locator("section.hgsr svg").first.screenshot() == picture
    tabs.close()


def said(page: Page) -> str:
    return page.locator("section.hgsr").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "pages"), [("light", "."), ("dark", "index|03_")])
def test_axe_finds_nothing_serious(browser: Browser, site: Path, scheme: str, pages: str):
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    for name in (name for name in pages_of(site) if re.search(pages, name)):
        page.goto(f"{site.as_uri()}/{name}")
        for figure in page.locator("[data-hgsr]").all():  # drawn, and in the page's own colours
            drawn = "section.hgsr[data-dark]" if scheme == "dark" else "section.hgsr"
            figure.locator(drawn).wait_for()
        found = Axe().run(page).response["violations"]
        serious = [
            (rule["id"], rule["nodes"][0]["html"])
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]
        assert not serious, name
    page.close()


LIVE = {
    "00_start_here": "through.js",
    "02_norms_that_make_zeros": "norms.js",
    "03_hierarchical_penalties": "penalties.js",
    "05_train_and_watch": "maps.js",
    "06_a_fair_comparison": "paths.js",
    "10_playground": "playground.js",
}


@pytest.mark.parametrize("name", LIVE)
def test_a_page_s_figure_answers_without_python_in_the_committed_state(
    browser: Browser, site: Path, name: str
):
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{(site / name).as_uri()}.html")
    state = page.locator("[data-hgsr-state]")
    assert state.get_attribute("data-figure") == LIVE[name]
    figure = page.locator("[data-hgsr][data-open]")
    figure.wait_for()
    control = figure.locator("input[type=range], select").first
    control.scroll_into_view_if_needed()
    before = figure.screenshot()
    control.press("ArrowRight" if control.get_attribute("type") == "range" else "ArrowDown")
    for _ in range(20):  # a busy machine paints late
        page.wait_for_timeout(250)
        if figure.screenshot() != before:
            break
    else:
        pytest.fail("nothing on the page has moved")
    assert errors == []
    page.close()


def test_formulas_are_drawn(page, address):
    page.goto(f"{address}/03_hierarchical_penalties.html")
    box = page.locator("math msqrt").first.bounding_box()
    assert box["width"] > 20
    assert box["height"] > 8


def test_search_finds_the_page_on_a_word(page, address):
    page.goto(f"{address}/search.html?q=calibration")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert "06" in page.locator("#search-results").inner_text()


def test_a_link_from_the_glossary_reaches_its_heading(page, address):
    page.goto(f"{address}/glossary.html")
    link = page.locator("article a[href*='_']").first
    with page.expect_navigation():
        link.click()
    place = page.evaluate("decodeURIComponent(location.hash.slice(1))")
    assert page.evaluate("name => document.getElementById(name) !== null", place)


def test_nothing_runs_off_a_narrow_screen(browser, address, site):
    page = browser.new_page(viewport={"width": 360, "height": 740})
    for name in pages_of(site):
        page.goto(f"{address}/{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 361, name
    page.close()
