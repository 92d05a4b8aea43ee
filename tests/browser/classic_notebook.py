"""Live figures in the classic Notebook with ipywidgets 7.7.1 and anywidget 0.9: run by `make test-classic`.

JupyterLab's part is in `test_jupyter`. Here the page belongs to another program: its style sheet, its keys
(an arrow key moves between cells, Enter opens one) and its way to put a figure into the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page

from hgsr_lite.live import Norms, Penalties, Trainer
from tests.browser.server import LONG, Server
from tests.lanes.classic import PYTHON

REPOSITORY = Path(__file__).resolve().parents[2]
SETUP = f"""import pandas as pd
import torch
import hgsr_lite as hg
from hgsr_lite.live import *
from hgsr_lite.study import read_table
from hgsr_lite.training import History
data = hg.load_data("digits", device="cpu", limit=200)
model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, width=0.25, seed=0).eval()
norms = torch.rand((3, 8, 6), generator=torch.Generator().manual_seed(0))
norms[1:, 2] = norms[2, 5] = 0
history = History(snapshots={{"conv": norms}}, snapshot_epochs=[0, 1, 2])
studies = {str(REPOSITORY / "studies")!r}
table, layers = read_table(f"{{studies}}/digits.csv"), pd.read_csv(f"{{studies}}/digits_layers.csv")"""
CELLS = {
    "norms": "figure = Norms()\nfigure",
    "penalties": "Penalties()",
    "maps": 'KernelMaps(history, "conv")',
    "paths": "Paths(table, layers)",
    "through": 'ThroughLayers({"dense": model}, data)',
    "trainer": "Trainer(epochs=2)",
    "playground": "panel = playground(data, epochs=2)\npanel",
}
SAYS = "print('a is', figure.a, figure.key)"
FRAMED = """import hgsr_lite.live.figure
hgsr_lite.live.figure._FRAMED_FRONTENDS = ("sys",)  # the way in which Colab is shown a figure"""
KEYS = {
    "norms": ("slider", "step", "ArrowRight ArrowRight"),
    "penalties": ("slider", "scale of the kernel of output 1, input 0", "ArrowUp ArrowUp"),
    "maps": ("slider", "epoch", "ArrowLeft"),
    "paths": ("slider", "strength", "ArrowRight"),
    "through": ("img", "dense, third", "ArrowRight Enter ArrowDown Enter"),
}
"""Figure -> role and name of a control, and keys, of which the Notebook has its own use for most."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Classic(Server):
    """The classic Notebook of the lane's environment."""

    page = "notebooks"

    def __init__(self, folder: Path) -> None:
        command = ["-m", "notebook", "--ip=127.0.0.1", f"--notebook-dir={folder}"]
        super().__init__(folder, command, PYTHON, PYTHONPATH=str(REPOSITORY))


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Classic]:
    server = Classic(tmp_path_factory.mktemp("classic"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def ran(browser: Browser, server: Classic) -> Iterator[Page]:
    """A notebook with every figure, which its reader has run."""
    server.write("every figure.ipynb", [SETUP, *CELLS.values(), SAYS])
    page = opened(browser, server, "every figure.ipynb")
    run_all(page)
    page.get_by_text("a is 1.6 es").wait_for(timeout=LONG)
    yield page
    page.close()


def opened(browser: Browser, server: Classic, name: str) -> Page:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(server.address(name))
    page.wait_for_function("window.Jupyter?.notebook?.kernel?.is_connected()", timeout=LONG)
    return page


def run_all(page: Page) -> None:
    page.get_by_role("link", name="Cell", exact=True).click()
    page.get_by_role("menuitem", name="Run All", exact=True).click()


def save(page: Page) -> None:
    page.keyboard.press("Control+s")
    page.wait_for_function("!Jupyter.notebook.dirty", timeout=LONG)


def figure_of(page: Page, name: str) -> Locator:
    """The figure in the output of its cell."""
    return page.locator(".code_cell").nth(1 + [*CELLS].index(name)).locator("section.hgsr")


@pytest.mark.parametrize("name", KEYS)
def test_keys_change_numbers_and_picture_and_do_nothing_to_the_notebook(ran: Page, name: str):
    figure = figure_of(ran, name)
    figure.wait_for(timeout=LONG)
    role, label, keys = KEYS[name]
    control = figure.get_by_role(role, name=re.compile("^" + label)).first
    control.focus()
    words, picture = said(figure), figure.screenshot()
    cells = ran.evaluate("Jupyter.notebook.get_selected_index()"), ran.locator(".code_cell").count()
    for key in keys.split():
        ran.keyboard.press(key)
    assert said(figure) != words
    assert figure.screenshot() != picture
    assert (ran.evaluate("Jupyter.notebook.get_selected_index()"), ran.locator(".code_cell").count()) == cells
    assert ran.complaints == []


STYLES = """root => [root, ...root.querySelectorAll(":is(div, p, ul, li, pre, td)")].map((el) => {
  const style = getComputedStyle(el);
  const parts = ["display", "background-color", "box-shadow", "font-size", "font-weight", "list-style-type",
    ...["top", "left"].flatMap((side) => [`margin-${side}`, `padding-${side}`, `border-${side}-width`])];
  return `${el.tagName} ${el.className}: ${parts.map((part) => style.getPropertyValue(part))}`;
})"""


@pytest.mark.parametrize("name", ["norms", "trainer"])
def test_the_notebooks_style_sheet_changes_no_figure(browser: Browser, server: Classic, ran: Page, name: str):
    """Its rules for lists, tables and code, and its classes, one of which hid what is read aloud."""
    figure = figure_of(ran, name)
    figure.wait_for(timeout=LONG)
    save(ran)
    cell = nbformat.read(server.folder / "every figure.ipynb", 4).cells[1 + [*CELLS].index(name)]
    alone = browser.new_page()
    alone.set_content(cell.outputs[0].data["text/html"])
    alone.locator("section.hgsr").wait_for()
    for root in (figure, alone.locator("section.hgsr")):
        root.get_by_role("button", name="copy as Python").click()
    assert figure.evaluate(STYLES) == alone.locator("section.hgsr").evaluate(STYLES)
    alone.close()


def said(figure: Locator) -> str:
    """What a figure says to eyes and ears."""
    return figure.evaluate(
        """root => root.textContent + [...root.querySelectorAll("[aria-label]")]
          .map((el) => el.getAttribute("aria-label") + el.getAttribute("aria-valuetext")).join()"""
    )


def test_the_page_trains_the_trainer_and_python_the_playground(ran: Page):
    for name, rows in {"trainer": 1, "playground": 3}.items():
        figure = figure_of(ran, name)
        figure.wait_for(timeout=LONG)
        figure.get_by_role("button", name="Train").click()
        figure.locator("tbody tr").nth(rows - 1).wait_for(timeout=LONG)
        assert "finished after epoch 2" in figure.locator("[role=status]").first.inner_text()
    assert ran.complaints == []


def test_page_and_python_follow_each_other_also_after_a_reload(browser: Browser, server: Classic):
    server.write("norms.ipynb", [SETUP, "figure = Norms()\nfigure", SAYS])
    page = opened(browser, server, "norms.ipynb")
    run_all(page)
    page.get_by_text("a is 1.6 es").wait_for(timeout=LONG)
    change_by_hand(page)
    run_last(page)
    page.get_by_text("a is 1.5 gl12").wait_for(timeout=LONG)
    save(page)
    page.reload()
    page.wait_for_function("document.querySelector('section.hgsr select')?.value === 'gl12'", timeout=LONG)
    assert "a 1.5" in page.get_by_role("slider", name="kernels a and b").get_attribute("aria-valuetext")
    assert page.complaints == []
    page.close()


def change_by_hand(page: Page) -> None:
    figure = page.locator("section.hgsr")
    figure.get_by_role("slider", name="kernels a and b").focus()
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    figure.get_by_label("penalty").first.select_option("gl12")
    page.wait_for_timeout(1500)


def run_last(page: Page) -> None:
    page.locator(".code_cell .CodeMirror").last.click()
    page.keyboard.press("Control+Enter")


def test_shown_as_colab_is_shown_it_the_widget_itself_answers(browser: Browser, server: Classic):
    server.write("framed.ipynb", [SETUP, FRAMED, "figure = Norms()\nfigure", SAYS])
    page = opened(browser, server, "framed.ipynb")
    run_all(page)
    page.locator(".widget-subarea, .output_subarea").locator("section.hgsr").wait_for(timeout=LONG)
    page.get_by_text("a is 1.6 es").wait_for(timeout=LONG)
    change_by_hand(page)
    run_last(page)
    page.get_by_text("a is 1.5 gl12").wait_for(timeout=LONG)
    page.close()


def test_saved_and_reopened_without_its_python_every_figure_is_there(
    browser: Browser, server: Classic, ran: Page
):
    for name in CELLS:
        figure_of(ran, name).wait_for(timeout=LONG)
    save(ran)
    server.end_sessions()
    page = opened(browser, server, "every figure.ipynb")
    for name in CELLS:
        figure_of(page, name).wait_for(timeout=LONG)
    assert page.get_by_text("Error displaying widget").count() == 0
    figure = figure_of(page, "norms")
    before = said(figure)
    figure.get_by_role("slider", name="step").press("ArrowRight")
    assert said(figure) != before
    figure_of(page, "playground").get_by_role("button", name="Train").click()
    assert "No Python session answers here" in said(figure_of(page, "playground"))
    assert page.complaints == []
    page.close()


STRANGERS = {"norms": Norms, "penalties": Penalties, "trainer": Trainer}


def test_outputs_that_are_not_trusted_are_pictures_with_words(browser: Browser, server: Classic):
    server.write_as_from_a_stranger(
        "stranger.ipynb", [make()._repr_mimebundle_() for make in STRANGERS.values()]
    )
    page = opened(browser, server, "stranger.ipynb")
    for number, make in enumerate(STRANGERS.values()):
        output = page.locator(".code_cell").nth(number).locator(".output_area")
        image = output.locator("img")
        image.wait_for(timeout=LONG)
        assert image.get_attribute("alt") == make().alt()
        assert image.evaluate("image => image.naturalWidth") > 200
    assert page.locator("section.hgsr").count() == 0
    page.close()
