"""What a figure holds in the page does not grow with use, and the benchmark of it measures just that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

import hgsr_lite as hg
from benchmarks.live import HEAP, heap
from hgsr_lite.live import ThroughLayers
from tests.browser.conftest import CHROMIUM, FLAGS

DROP_PICTURES = """async () => {
  const context = document.querySelector("canvas").getContext("2d");
  for (let n = 0; n < 30; n++) {
    context.putImageData(context.createImageData(300, 300), 0, 0);
    await new Promise(requestAnimationFrame);
  }
}"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that tells what it holds."""
    telling = browser.browser_type.launch(executable_path=CHROMIUM, args=[*FLAGS, *HEAP])
    yield telling.new_page()
    telling.close()


def test_pictures_that_a_page_has_dropped_are_not_counted(page: Page):
    page.set_content("<canvas></canvas>")
    page.evaluate(DROP_PICTURES)
    held = heap(page)
    page.evaluate(DROP_PICTURES)
    assert heap(page) < held + 0.2


def test_the_figure_that_draws_most_holds_no_more_after_more_moves(page: Page, tmp_path: Path):
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0).eval()
    figure = ThroughLayers({"dense": model, "again": model}, hg.load_data("digits", device="cpu"))
    (tmp_path / "figure.html").write_text(figure.page(), encoding="utf-8")
    page.goto((tmp_path / "figure.html").as_uri())
    page.get_by_role("img", name="again, third").focus()
    held = [held_after(page, moves) for moves in (60, 180)]
    assert held[1] < held[0] + 0.2


def held_after(page: Page, moves: int) -> float:
    """The heap after so many moves: to the next channel, off, on again."""
    for move in range(moves):
        page.keyboard.press("Enter" if move % 3 else "ArrowRight")
    return heap(page)
