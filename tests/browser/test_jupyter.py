"""Live figures in a real JupyterLab: page and Python follow each other; a saved notebook keeps its figure."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from playwright.sync_api import Browser, Page

from hgsr_lite.live import Norms, Penalties, Trainer

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = secrets.token_hex(16)
LONG = 120_000  # milliseconds; a loaded machine takes its time to import
FIRST = "from hgsr_lite.live import Norms\nfigure = Norms()\nfigure"
SECOND = "print('a is', figure.a, figure.key)"
PLAYGROUND = """import hgsr_lite as hg
from hgsr_lite.live import playground
panel = playground(hg.load_data("digits", device="cpu", limit=200), epochs=2)
panel"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Lab:
    """A JupyterLab on loopback, with settings of its own: over a folder, or as a command starts it."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.folder, self.port = folder, _free_port()
        settings = {name: str(folder / ".jupyter" / name) for name in ("config", "data", "runtime")}
        environment = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": settings["config"],
            "JUPYTER_RUNTIME_DIR": settings["runtime"],
            "JUPYTERLAB_SETTINGS_DIR": settings["data"],
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".jupyter" / "workspaces"),
        }
        given = command or ("-m", "jupyterlab", "--ip=127.0.0.1", f"--notebook-dir={folder}")
        options = ["--no-browser", "--allow-root", f"--port={self.port}", f"--IdentityProvider.token={TOKEN}"]
        self.log = (folder / "lab.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, *given, *options],
            env=environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                self.ask("api/status")
            except OSError:
                time.sleep(0.5)
            else:
                return
        raise TimeoutError((self.folder / "lab.log").read_text())

    def ask(self, path: str, method: str = "GET") -> object:
        """One question to the server."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}", method=method, headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or "null")

    def end_sessions(self) -> None:
        """End every Python session."""
        for session in self.ask("api/sessions"):
            self.ask(f"api/sessions/{session['id']}", "DELETE")

    def address(self, name: str) -> str:
        """Where a notebook opens, alone."""
        return f"http://127.0.0.1:{self.port}/doc/tree/{name}?token={TOKEN}&reset"

    def stop(self) -> None:
        """End it and what it started."""
        started = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
        self.process.terminate()
        # A command may end before the server that it started; on a loaded machine both take long.
        for process in psutil.wait_procs(started, timeout=10)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
            self.process.wait(60)
        self.log.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.wait()
        yield lab
    finally:
        lab.stop()


def opened(browser: Browser, lab: Lab, name: str, cells: list[str] | None = None) -> Page:
    """A notebook, made of these cells unless it is there, open in JupyterLab."""
    if cells is not None:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, lab.folder / name)
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(lab.address(name))
    page.locator(".jp-Notebook").wait_for(timeout=LONG)
    return page


def run_all(page: Page) -> None:
    # Asked sooner, before the notebook has its Python session, JupyterLab opens a dialog and runs nothing.
    page.get_by_text("| Idle").wait_for(timeout=LONG)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def keep_widget_state(lab: Lab, wanted: bool) -> None:
    """Whether JupyterLab saves the state of widgets in the notebook."""
    place = lab.folder / ".jupyter" / "data" / "@jupyter-widgets" / "jupyterlab-manager"
    place.mkdir(parents=True, exist_ok=True)
    (place / "plugin.jupyterlab-settings").write_text(json.dumps({"saveState": wanted}))


@pytest.mark.parametrize("with_state", [False, True], ids=["state not saved", "state saved"])
def test_page_and_python_follow_each_other_and_the_saved_notebook_shows_its_figure(
    browser: Browser, lab: Lab, with_state: bool
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


def test_the_lab_command_opens_the_first_page_and_shows_the_studies_that_pages_link_to(
    browser: Browser, tmp_path: Path
):
    for name in ("notebooks/00_start_here.ipynb", "studies/README.md"):  # JupyterLab writes beside them
        (tmp_path / name).parent.mkdir()
        shutil.copy(REPOSITORY / name, tmp_path / name)
    lab = Lab(tmp_path, "-m", "hgsr_lite", "lab")
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


def test_outputs_that_are_not_trusted_are_pictures_with_words(browser: Browser, lab: Lab):
    cells = []
    for figure in (make() for make in FIGURES.values()):
        output = nbformat.v4.new_output("execute_result", figure._repr_mimebundle_(), execution_count=1)
        cells.append(nbformat.v4.new_code_cell("figure", outputs=[output], execution_count=1))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), lab.folder / "stranger.ipynb")
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


def test_the_playground_trains_and_says_when_python_is_gone(browser: Browser, lab: Lab):
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
