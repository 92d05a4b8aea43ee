"""Live figures in a real JupyterLab: page and Python follow each other; a saved notebook keeps its figure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from hgsr_lite.live import Norms, Penalties, Trainer
from tests.browser.server import LONG, TOKEN, Server

REPOSITORY = Path(__file__).resolve().parents[2]
FIRST = "from hgsr_lite.live import Norms\nfigure = Norms()\nfigure"
SECOND = "print('a is', figure.a, figure.key)"
PLAYGROUND = """import hgsr_lite as hg
from hgsr_lite.live import playground
panel = playground(hg.load_data("digits", device="cpu", limit=200), epochs=2)
panel"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    lab = Server(tmp_path_factory.mktemp("lab"))
    try:
        lab.wait()
        yield lab
    finally:
        lab.stop()


def opened(browser: Browser | BrowserContext, lab: Server, name: str, cells: list[str] | None = None) -> Page:
    """A notebook, made of these cells unless it is there, open in JupyterLab."""
    if cells is not None:
        lab.write(name, cells)
    page = browser.new_page()
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.goto(lab.address(name))
    page.locator(".jp-Notebook").wait_for(timeout=LONG)
    return page


def run_all(page: Page) -> None:
    # Asked sooner, before the notebook has its Python session, JupyterLab opens a dialog and runs nothing.
    page.get_by_text("| Idle").wait_for(timeout=LONG)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def keep_widget_state(lab: Server, wanted: bool) -> None:
    """Whether JupyterLab saves the state of widgets in the notebook."""
    place = lab.folder / ".jupyter" / "data" / "@jupyter-widgets" / "jupyterlab-manager"
    place.mkdir(parents=True, exist_ok=True)
    (place / "plugin.jupyterlab-settings").write_text(json.dumps({"saveState": wanted}))


@pytest.mark.parametrize("with_state", [False, True], ids=["state not saved", "state saved"])
def test_page_and_python_follow_each_other_and_the_saved_notebook_shows_its_figure(
    browser: Browser, lab: Server, with_state: bool
):
    keep_widget_state(lab, with_state)
    name = f"norms {with_state}.ipynb"
    page = opened(browser, lab, name, [FIRST, SECOND])
    run_all(page)
    figure = page.locator("section.hgsr")
    figure.wait_for(timeout=LONG)
    page.get_by_text("a is 1.6 es").wait_for(timeout=LONG)

    figure.get_by_role("slider", name="kernels a and b").focus()
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    figure.get_by_label("penalty").first.select_option("gl12")
    page.wait_for_timeout(1500)
    page.locator(".jp-CodeCell").nth(1).click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("a is 1.5 gl12").wait_for(timeout=LONG)

    page.keyboard.press("Control+s")
    page.wait_for_timeout(2000)
    page.reload()
    page.locator("section.hgsr").wait_for(timeout=LONG)
    page.wait_for_function(
        "document.querySelector('section.hgsr select')?.value === 'gl12'", timeout=LONG
    )  # the last state, from Python
    page.close()

    lab.end_sessions()
    assert ("widgets" in nbformat.read(lab.folder / name, 4).metadata) == with_state
    page = opened(browser, lab, name)
    page.locator("section.hgsr").wait_for(timeout=LONG)
    assert page.get_by_text("Error displaying widget").count() == 0
    page.close()


def test_two_tabs_of_one_notebook_show_one_figure_and_do_not_disturb_each_other(
    browser: Browser, lab: Server
):
    """What is done in either reaches Python and the other; neither is set back, nothing is shown twice."""
    tabs = browser.new_context(viewport={"width": 1280, "height": 1000})
    first = opened(tabs, lab, "tabs.ipynb", [FIRST, SECOND])
    run_all(first)
    first.get_by_text("a is 1.6 es").wait_for(timeout=LONG)
    first.keyboard.press("Control+s")
    first.wait_for_timeout(2000)
    second = opened(tabs, lab, "tabs.ipynb")
    second.locator("section.hgsr").wait_for(timeout=LONG)
    second.wait_for_timeout(1500)  # until page and Python have met

    picture = second.locator("section.hgsr svg").first.screenshot()
    drag(first, -60)
    dragged = point_in(first)
    assert dragged != "a 1.6, b 0.5"
    wait_for_point(second, dragged)
    assert second.locator("section.hgsr svg").first.screenshot() != picture
    second.locator("section.hgsr").get_by_label("penalty").first.select_option("gl12")
    drag(second, 30)
    moved = point_in(second)
    assert moved != dragged
    wait_for_point(first, moved)
    first.wait_for_timeout(1500)
    assert [point_in(tab) for tab in (first, second)] == [moved, moved]  # no echo has set either back
    for tab in (first, second):
        assert tab.locator("section.hgsr select").first.input_value() == "gl12"
        assert tab.locator("section.hgsr").count() == 1
    first.locator(".jp-CodeCell").nth(1).click()
    first.keyboard.press("Shift+Enter")
    first.get_by_text(f"{moved.split(',')[0].replace('a', 'a is', 1)} gl12").wait_for(timeout=LONG)
    tabs.close()


def test_what_is_under_the_hand_is_never_set_back_by_the_answer_to_an_earlier_move(
    browser: Browser, lab: Server
):
    """Python repeats each change to its pages; of a move, when the hand is already further on."""
    page = opened(browser, lab, "drag.ipynb", [FIRST, SECOND])
    run_all(page)
    page.get_by_text("a is 1.6 es").wait_for(timeout=LONG)
    point = page.get_by_role("slider", name="kernels a and b")
    point.evaluate("""point => {
        window.stops = [point.getAttribute("aria-valuetext")];
        const look = () => stops.push(point.getAttribute("aria-valuetext"));
        new MutationObserver(look).observe(point, { attributeFilter: ["aria-valuetext"] });
    }""")
    drag(page, -90, steps=60, pause=15)
    page.wait_for_timeout(1500)
    stops = [float(words.split(",")[0].removeprefix("a ")) for words in page.evaluate("stops")]
    assert len(stops) > 20
    assert stops == sorted(stops, reverse=True)
    shown = point_in(page).split(",")[0].removeprefix("a ")
    page.locator(".jp-CodeCell").nth(1).click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text(f"a is {shown} es").wait_for(timeout=LONG)
    page.close()


def drag(page: Page, right: int, steps: int = 10, pause: int = 0) -> None:
    """Drag the point by hand, some pixels to the right, with a pause of some milliseconds after each step."""
    point = page.get_by_role("slider", name="kernels a and b").bounding_box()
    x, y = point["x"] + point["width"] / 2, point["y"] + point["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, steps + 1):
        page.mouse.move(x + right * step / steps, y)
        page.wait_for_timeout(pause)
    page.mouse.up()


def point_in(page: Page) -> str:
    return page.get_by_role("slider", name="kernels a and b").get_attribute("aria-valuetext")


def wait_for_point(page: Page, wanted: str) -> None:
    page.wait_for_function(
        f"document.querySelector('.hgsr [role=slider]').getAttribute('aria-valuetext') === '{wanted}'",
        timeout=LONG,
    )


def test_the_lab_command_opens_the_first_page_and_shows_the_studies_that_pages_link_to(
    browser: Browser, tmp_path: Path
):
    for name in ("notebooks/00_start_here.ipynb", "studies/README.md"):  # JupyterLab writes beside them
        (tmp_path / name).parent.mkdir()
        shutil.copy(REPOSITORY / name, tmp_path / name)
    lab = Server(tmp_path, ["-m", "hgsr_lite", "lab"])
    try:
        lab.wait()
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"http://127.0.0.1:{lab.port}/?token={TOKEN}")
        page.get_by_role("heading", name="00 · Start here").wait_for(timeout=LONG)
        page.close()
        assert lab.ask("api/contents/studies/README.md?content=0")["type"] == "file"
    finally:
        lab.stop()


FIGURES = {"norms": Norms, "penalties": Penalties, "trainer": Trainer}


def test_outputs_that_are_not_trusted_are_pictures_with_words(browser: Browser, lab: Server):
    lab.write_as_from_a_stranger("stranger.ipynb", [make()._repr_mimebundle_() for make in FIGURES.values()])
    page = opened(browser, lab, "stranger.ipynb")
    page.set_viewport_size({"width": 1280, "height": 3000})  # JupyterLab draws what is in view
    for number, make in enumerate(FIGURES.values()):
        output = page.locator(".jp-CodeCell").nth(number).locator(".jp-OutputArea").first
        image = output.locator("img")
        image.wait_for(timeout=LONG)
        assert image.get_attribute("alt") == make().alt()
        assert image.evaluate("image => image.naturalWidth") > 200
        assert output.inner_text().strip(" []1:\n") == ""
    assert page.locator("section.hgsr").count() == 0
    page.close()


def test_the_playground_trains_and_says_when_python_is_gone(browser: Browser, lab: Server):
    page = opened(browser, lab, "playground.ipynb", [PLAYGROUND])
    run_all(page)
    figure = page.locator("section.hgsr")
    figure.wait_for(timeout=LONG)
    assert figure.locator("tbody tr").count() == 2
    train = figure.get_by_role("button", name="Train")
    page.wait_for_timeout(1500)  # until page and Python have met
    train.click()
    figure.locator("tbody tr").nth(2).wait_for(timeout=LONG)
    assert "finished after epoch 2" in figure.locator("[role=status]").first.inner_text()
    assert figure.locator("thead th").last.inner_text() == "ms an image"
    assert all(0 < float(time) < 1000 for time in figure.locator("tbody td:last-child").all_inner_texts())
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2000)
    page.close()

    lab.end_sessions()
    page = opened(browser, lab, "playground.ipynb")
    figure = page.locator("section.hgsr")
    figure.wait_for(timeout=LONG)
    figure.get_by_role("button", name="Train").click()
    assert "No Python session answers here" in figure.inner_text()
    page.close()
