"""The live figures in a real browser, as pages without Python: they answer pointer and keys, and say so."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

import hgsr_lite as hg
from hgsr_lite.figures import proximal_step
from hgsr_lite.live import KernelMaps, LiveFigure, Norms, Paths, Penalties, ThroughLayers, Trainer
from hgsr_lite.study import read_table
from hgsr_lite.training import History

Open = Callable[..., Page]


def maps() -> KernelMaps:
    """A run of three moments in which two outputs and one input die."""
    norms = torch.rand((3, 8, 6), generator=torch.Generator().manual_seed(0)) + 0.2
    norms[1:, 2] = norms[2, 5] = 1e-5
    norms[2, :, 1] = 0
    shares = {"below tolerance": 0.5, "exact zeros": 0.1, "dead kernels": 0.3}
    shares |= {"dead inputs": 0.1, "dead outputs": 0.2}
    records = [{"epoch": n, "validation accuracy": 0.3 * n, **shares} for n in (1, 2, 3)]
    return KernelMaps(History(records, {"conv1": norms, "conv2": norms.flip(1)}, [0, 2, 3]), "conv1")


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open a figure as a page from the disk, the network cut; at the end, no page may have complained."""
    pages: list[Page] = []
    complaints: list[str] = []

    def open_(
        figure: LiveFigure, *, width: int = 1060, dark: bool = False, fragment: str = "", script: str = ""
    ) -> Page:
        colors = "background:#101418;color:#eee" if dark else "background:#fff"
        path = tmp_path / "figure.html"
        path.write_text(
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>a figure</title><body style='{colors}'><main><h1>A figure</h1>"
            f"{figure.page(address=True)}</main></body></html>",
            encoding="utf-8",
        )
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.context.set_offline(True)
        page.add_init_script(script)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri() + fragment)
        page.locator("section.hgsr").wait_for()
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()
    assert not complaints


@functools.cache
def study() -> tuple[pd.DataFrame, pd.DataFrame]:
    return read_table("studies/digits.csv"), pd.read_csv("studies/digits_layers.csv")


def paths() -> Paths:
    return Paths(*study())


def networks_and_images() -> tuple[dict[str, torch.nn.Module], hg.Data]:
    """Two small networks, the second with an input that nobody reads and an output that nobody makes."""
    models = {
        name: hg.build_model("digits_cnn", in_channels=1, num_classes=10, width=0.25, seed=0).eval()
        for name in ("dense", "regularised")
    }
    models["regularised"].features.conv3.weight.data[:, 3] = 0
    models["regularised"].features.conv3.weight.data[5] = 0
    return models, hg.load_data("digits", device="cpu")


def through() -> ThroughLayers:
    return ThroughLayers(*networks_and_images())


FIGURES = {
    "norms": Norms,
    "penalties": Penalties,
    "maps": maps,
    "trainer": Trainer,
    "paths": paths,
    "through": through,
}
every_figure = pytest.mark.parametrize("name", FIGURES)


@every_figure
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_figure_fits_narrow_and_wide_pages_in_the_pages_own_colours(open_page: Open, name: str, dark: bool):
    for width in (360, 1060):
        page = open_page(FIGURES[name](), width=width, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert (page.locator("section.hgsr").get_attribute("data-dark") is not None) == dark
        assert page.evaluate(CONTRAST) >= 4.5


CONTRAST = """() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => {
      v /= 255;
      return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const page = luminance(getComputedStyle(document.querySelector(".hgsr")).backgroundColor);
  const written = document.querySelectorAll(".hgsr :is(p, label, li, button:not(.first))");
  const ratios = [...written].map((el) => {
    const ink = luminance(getComputedStyle(el).color);
    return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
  });
  return Math.min(...ratios);
}"""


@every_figure
def test_every_control_has_a_name(open_page: Open, name: str):
    page = open_page(FIGURES[name]())
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll(
            ".hgsr :is(input, select, button, canvas, svg, [role=slider])")]
          .filter((el) => !(el.getAttribute("aria-label") || el.textContent.trim() || el.closest("label")
            || el.getAttribute("aria-hidden"))).map((el) => el.outerHTML.slice(0, 90))"""
    )
    assert not unnamed


@every_figure
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(open_page: Open, name: str, dark: bool):
    found = Axe().run(open_page(FIGURES[name](), width=360, dark=dark))
    assert not found.response["violations"], found.generate_report()


def by_keys(page: Page, *steps: tuple[str, str]) -> None:
    """Tab forward to each control, by its name, and press the keys given for it; no pointer is used."""
    for name, keys in steps:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(FOCUSED).startswith(name):
                break
        else:
            pytest.fail(f"Tab does not lead to {name!r}")
        for key in keys.split():
            page.keyboard.press(key)


FOCUSED = """() => {
  const at = document.activeElement;
  const named = at.closest("[role=radiogroup]") ?? at;
  const words = named.getAttribute("aria-label") || named.closest("label")?.textContent || named.textContent;
  return words.trim();
}"""
PATHS_BY_KEYS = {
    "norms": [
        ("penalty", "ArrowDown"),
        ("step", "ArrowRight"),
        ("kernels", "ArrowRight"),
        ("kernels a and b", "ArrowLeft ArrowUp"),
        ("copy as Python", "Enter"),
    ],
    "penalties": [
        ("penalty", "ArrowDown"),
        ("p, inside the group", "ArrowRight"),
        ("groups", "ArrowRight"),
        ("scale of the kernel of output 1, input 0", "ArrowUp"),
        ("copy as Python", "Enter"),
    ],
    "maps": [
        ("layer", "ArrowDown"),
        ("epoch", "ArrowLeft"),
        ("threshold", "ArrowRight"),
        ("epoch 2: map", "ArrowRight ArrowDown"),
        ("copy as Python", "Enter"),
    ],
    "paths": [
        ("● left", "ArrowDown"),
        ("strength", "ArrowRight"),
        ("against", "ArrowDown"),
        ("copy as Python", "Enter"),
    ],
    "through": [
        ("image", "ArrowRight"),
        ("regularised, second", "ArrowRight Enter"),
        ("switch off what nobody makes", "Enter"),
        ("copy as Python", "Enter"),
    ],
    "trainer": [
        ("One epoch", "Enter"),
        ("penalty", "ArrowDown"),
        ("groups", "ArrowRight"),
        ("strength", "ArrowRight"),
        ("proximal step", "Space"),
        ("kernels now: map", "ArrowRight"),
        ("copy as Python", "Enter"),
    ],
}


@every_figure
def test_the_keyboard_alone_leads_through_the_whole_figure(open_page: Open, name: str):
    page = open_page(FIGURES[name]())
    before = page.locator(".hgsr").inner_text()
    by_keys(page, *PATHS_BY_KEYS[name])
    assert page.locator("pre").is_visible()
    assert page.locator(".hgsr").inner_text() != before


def test_nothing_moves_by_itself_and_playing_is_slow_where_less_motion_is_wanted(open_page: Open):
    page = open_page(maps())
    page.emulate_media(reduced_motion="reduce")
    page.evaluate(MOMENTS)
    page.get_by_role("button", name="play").click()
    page.wait_for_function("seen.length === 3", timeout=30_000)
    moments = page.evaluate("seen")
    assert moments[2] - moments[1] > 800
    assert page.evaluate("document.getAnimations().length") == 0


MOMENTS = """() => {
  window.seen = [];
  const slider = document.querySelector("input[type=range]");
  new MutationObserver(() => seen.push(performance.now()))
    .observe(slider, { attributes: true, attributeFilter: ["aria-valuetext"] });
}"""


def test_dragging_the_point_moves_the_numbers_and_the_picture(open_page: Open):
    page = open_page(Norms())
    facts, plane = page.locator(".facts").last, page.locator(".pane svg").first
    before, picture = facts.inner_text(), plane.screenshot()
    point = page.get_by_role("slider", name="kernels a and b").bounding_box()
    x, y = point["x"] + point["width"] / 2, point["y"] + point["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y + 30, steps=5)
    page.mouse.up()
    assert facts.inner_text() != before
    assert plane.screenshot() != picture


def test_keys_move_the_point_to_where_the_package_lands(open_page: Open):
    page = open_page(Norms())
    point = page.get_by_role("slider", name="kernels a and b")
    point.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert point.get_attribute("aria-valuetext") == "a 1.4, b 0.5"
    wanted = float(proximal_step("es", torch.tensor([1.4, 0.5]), 0.3)[0])
    assert f"lands at {wanted:.3g}" in page.locator(".facts").last.inner_text()


def test_a_penalty_without_a_closed_proximal_step_says_so(open_page: Open):
    page = open_page(Norms())
    page.get_by_label("penalty").select_option("hsq_gl12")
    assert "no closed form" in page.locator(".note").inner_text()


def test_the_state_in_the_address_is_what_is_shown_again(open_page: Open):
    page = open_page(Norms())
    page.get_by_label("penalty").select_option("gl12")
    page.wait_for_function("location.hash.includes('key=gl12')")
    again = open_page(Norms(), fragment=page.evaluate("location.hash"))
    assert again.get_by_label("penalty").input_value() == "gl12"
    strange = open_page(Norms(), fragment="#key=nothing&step=much&a=9e99&b=1")
    point = strange.get_by_role("slider", name="kernels a and b")
    assert point.get_attribute("aria-valuetext") == "a 1.6, b 1"


def test_scaling_a_kernel_by_keys_changes_the_forces_of_its_group_alone(open_page: Open):
    page = open_page(Penalties(key="es"))
    forces = page.locator("svg text.strong")
    before = forces.all_text_contents()
    page.get_by_role("slider", name="scale of the kernel of output 1, input 0").focus()
    page.keyboard.press("ArrowUp")
    after = forces.all_text_contents()
    changed = [one != other for one, other in zip(before[:6], after[:6], strict=True)]
    assert changed == [True, False, True, False, True, False]


def test_dials_lead_to_the_eleven_and_beyond(open_page: Open):
    page = open_page(Penalties(key="gl"))
    dial = page.get_by_role("radiogroup", name="q, outside")
    dial.get_by_role("radio", name="2").click()
    assert "not one of the eleven" in page.locator(".hgsr").inner_text()
    page.get_by_role("radiogroup", name="p, inside the group").get_by_role("radio", name="1").click()
    assert page.get_by_role("combobox", name="penalty").input_value() == "hsq_gl"
    assert "slope = degree = p · q = 2" in page.locator("svg").last.text_content()


def test_scrubbing_and_the_threshold_change_counts_and_map(open_page: Open):
    page = open_page(maps())
    assert "18 of 48 kernels below" in page.locator(".hgsr").inner_text()
    canvas = page.locator("canvas").nth(1)
    picture = canvas.screenshot()
    page.get_by_role("slider", name="epoch").focus()
    page.keyboard.press("ArrowLeft")
    assert "6 of 48 kernels below" in page.locator(".hgsr").inner_text()
    assert "1 of 8 outputs" in page.locator(".hgsr").inner_text()
    assert canvas.screenshot() != picture
    page.get_by_role("slider", name="threshold").focus()
    page.keyboard.press("End")
    assert "48 of 48 kernels below" in page.locator(".hgsr").inner_text()


def test_the_arrow_keys_read_single_kernels(open_page: Open):
    page = open_page(maps())
    page.locator("canvas").nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert "kernel of output 0, input 1: norm 0 (below)" in page.locator(".hgsr").inner_text()


def test_playing_walks_through_the_moments(open_page: Open):
    page = open_page(maps())
    page.get_by_role("button", name="play").click()
    page.wait_for_function(
        "document.querySelector('input[type=range]').getAttribute('aria-valuetext') === '0 of 3'"
    )
    page.wait_for_function(
        "document.querySelector('input[type=range]').getAttribute('aria-valuetext') === '3 of 3'"
    )


def test_scrubbing_a_path_shows_what_the_study_found_there(open_page: Open):
    page = open_page(paths(), fragment="#left=gl%2C%20neuron%2C%20proximal&after=fine-tuning")
    picture = page.locator("svg").first.screenshot()
    page.get_by_role("slider", name="strength").focus()
    page.keyboard.press("End")
    runs = study()[0].query("penalty == 'gl' and grouping == 'neuron' and proximal and fraction == 60")
    left = page.locator(".facts").first.inner_text()
    assert f"accuracy {runs['validation accuracy after fine-tuning'].mean():.1%}".replace("%", " %") in left
    assert f"{runs['parameters removed'].mean():.1%}".replace("%", " % of the parameters") in left
    assert page.locator("svg").first.screenshot() != picture


@pytest.mark.parametrize("name", ["norms", "penalties", "maps", "paths", "through"])
def test_the_lines_for_python_run(open_page: Open, name: str):
    page = open_page(FIGURES[name]())
    page.get_by_role("button", name="copy as Python").click()
    lines = page.locator("pre").inner_text()
    models, data = networks_and_images()
    exec(lines, {"history": history_of_maps(), "table": study()[0], "models": models, "data": data})


def history_of_maps() -> History:
    return History(snapshots=maps()._norms)


def test_a_channel_switched_off_is_off_in_pytorch_too(open_page: Open):
    """What the page says of an image is what the copied lines print."""
    page = open_page(through())
    canvas = page.get_by_role("img", name=re.compile("regularised, third"))
    said = page.locator(".pane").nth(1).locator("p").last
    before = said.inner_text()
    canvas.focus()
    for key in ("Enter", "ArrowRight", "Enter", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    assert said.inner_text() != before
    assert "3 off; channel 15 is off" in canvas.get_attribute("aria-label")
    page.get_by_role("button", name="copy as Python").click()
    models, data = networks_and_images()
    exec(page.locator("pre").inner_text(), {"models": models, "data": data})
    with torch.no_grad():
        shares = models["regularised"](data.test.images[:1]).softmax(1)[0]
    best = int(shares.argmax())
    assert f"{best} ({100 * float(shares[best]):.1f} %)" in said.inner_text()


@every_figure
def test_where_no_script_runs_a_still_picture_stands(browser: Browser, tmp_path: Path, name: str):
    (tmp_path / "still.html").write_text(FIGURES[name]().page(), encoding="utf-8")
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((tmp_path / "still.html").as_uri())
    image = page.locator("img")
    assert image.get_attribute("alt")
    assert image.bounding_box()["width"] > 200
    page.close()


def test_the_trainer_trains_in_the_page_from_the_disk_with_the_network_cut(open_page: Open):
    page = open_page(Trainer(epochs=2, strength=1e-3))
    status = page.locator(".hgsr [role=status]").first
    page.get_by_role("button", name="Train").click()
    assert page.get_by_role("button", name="Train").is_disabled()
    page.get_by_role("slider", name="strength").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("This run goes on with the settings it began with").wait_for()
    page.wait_for_function(f"{STATUS}.includes('finished after epoch 2')", timeout=120_000)
    assert "of the kernels dead" in status.inner_text()
    assert page.locator("table tbody tr").count() == 1
    assert "hsq_gl12, feature-wise, strength 0.001" in page.locator("table").inner_text()


STATUS = "document.querySelector('.hgsr [role=status]').textContent"

SLOW_WORKER = """
class SlowWorker extends Worker {
  postMessage(message) { setTimeout(() => super.postMessage(message), 700); }
  set onmessage(act) { super.onmessage = (event) => setTimeout(() => act(event), 700); }
}
window.Worker = SlowWorker;
"""


def test_what_is_pressed_before_the_worker_has_answered_counts_once(open_page: Open):
    """A worker takes its time on a busy machine: its answers to what was asked before undo no press."""
    page = open_page(Trainer(epochs=2, strength=1e-3), script=SLOW_WORKER)
    train, stop = (page.get_by_role("button", name=name) for name in ("Train", "Stop"))
    train.click()  # before even the first look has been answered
    assert train.is_disabled()
    assert stop.is_enabled()
    page.wait_for_timeout(1500)  # the answer to that look is there by now
    assert train.is_disabled()
    page.wait_for_function(f"{STATUS}.includes('finished after epoch 2')", timeout=120_000)
    assert page.locator("table tbody tr").count() == 1


NO_WORKER = "window.Worker = class { constructor() { throw new Error('not here'); } };"


def test_where_a_page_may_start_no_worker_it_trains_itself_and_forgets(open_page: Open):
    page = open_page(Trainer(epochs=2, strength=1e-3), script=NO_WORKER)
    page.get_by_role("button", name="Train").click()
    page.wait_for_function(f"{STATUS}.includes('finished after epoch 2')", timeout=120_000)
    assert page.locator("table tbody tr").count() == 1
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("document.querySelectorAll('table tbody tr').length === 0")


def test_a_stop_that_comes_too_late_finds_the_run_finished(open_page: Open):
    page = open_page(Trainer(epochs=2, strength=1e-3), script=SLOW_WORKER)
    page.get_by_role("button", name="Train").click()
    page.wait_for_function(f"{STATUS}.startsWith('Epoch 2 of 2')", timeout=120_000)
    page.get_by_role("button", name="Stop").click()
    page.wait_for_function(f"/(finished after|stopped in) epoch/.test({STATUS})", timeout=120_000)
    assert page.locator("table tbody tr").count() == 1
    assert page.get_by_role("button", name="Train").is_enabled()


def test_the_trainer_goes_on_by_epochs_holds_stops_and_forgets(open_page: Open):
    page = open_page(Trainer(penalty="gl12", strength=0.3, proximal=True, epochs=3))
    page.get_by_role("button", name="One epoch").click()
    page.wait_for_function(f"{STATUS}.startsWith('Paused: epoch 1 of 3')", timeout=60_000)
    page.get_by_role("button", name="Go on").click()
    page.wait_for_function(f"{STATUS}.startsWith('Epoch 2')", timeout=60_000)
    page.get_by_role("button", name="Stop").click()
    page.wait_for_function(f"{STATUS}.includes('stopped in epoch')", timeout=60_000)
    assert page.locator("table tbody tr").count() == 1
    with page.expect_download() as download:
        page.get_by_role("button", name="save the table as CSV").click()
    table = pd.read_csv(download.value.path())
    assert table["penalty"].tolist() == ["gl12"]
    assert 0 <= table["exact zeros"][0] <= 1
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("document.querySelectorAll('table tbody tr').length === 0")
    assert page.get_by_role("button", name="Train").is_enabled()
