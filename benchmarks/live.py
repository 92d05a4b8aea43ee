"""The live figures in Chromium: from an input event to the painted picture, and the trainer's speed.

`python -m benchmarks.live [--out FOLDER]`, part of `make bench`, writes `live.csv`. A row a figure over
50 moves: the median and the 95th percentile of the milliseconds from an input event to the end of the frame
that shows it, once with a screen of 60 frames a second, for which a picture has to wait, and once without
that limit, which is the work alone; the page's heap after 100 moves and after 500 more. Then the trainer:
seconds of processor time that an epoch takes in Node, dense and empty, and frames a second meanwhile.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

import hgsr_lite as hg
from benchmarks.options import options_of
from hgsr_lite.live import KernelMaps, LiveFigure, Norms, Paths, Penalties, ThroughLayers, Trainer
from hgsr_lite.live.modules import one_text
from hgsr_lite.study import read_table
from hgsr_lite.training import History

MOVES = 50
STUDIES = Path(__file__).resolve().parents[1] / "studies"
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HEAP = ["--js-flags=--expose-gc", "--enable-precise-memory-info"]
"""With these Chromium tells `heap`."""
_UNLIMITED = ["--disable-frame-rate-limit", "--disable-gpu-vsync"]
_WATCH = """
  (kind) => {
    window.painted = [];
    addEventListener(kind, (event) => requestAnimationFrame(() => {
      const { port1, port2 } = new MessageChannel();  // its message comes after the frame
      port1.onmessage = () => painted.push(performance.now() - event.timeStamp);
      port2.postMessage(0);
    }), true);
  }
"""
_EPOCHS = """
  const data = { images: Float64Array.from({ length: 1294 * 64 }, Math.random),
    labels: Uint8Array.from({ length: 1294 }, (_, n) => n % 10) };
  const row = { norm: 1, inner: 1, outer: 1 };
  const answer = {};
  for (const [name, strength] of [["dense", 0], ["all dead", 100]]) {
    const run = new live.TrainingRun({ train: data, validation: data }, {
      lr: 0.05, momentum: 0.9, weightDecay: 5e-4, batchSize: 64, warmup: 0, l1Mix: 0,
      row, grouping: "feature", proximal: true, epochs: 3, seed: 0, strength });
    const spent = [];
    for (let epoch = 0; epoch < 3; epoch++) {
      const before = process.cpuUsage().user;
      for (let batch = 0; batch < run.batches - 1; batch++) run.step();
      spent.push((process.cpuUsage().user - before) / 1e6);
      run.step();
    }
    answer[name] = Math.min(...spent);
  }
  console.log(JSON.stringify(answer));
"""


_FRAMES = """
  () => new Promise((done) => {
    const times = [];
    const tick = (time) => {
      times.push(time);
      if (time - times[0] < 3000) requestAnimationFrame(tick);
      else done(times);
    };
    requestAnimationFrame(tick);
  })
"""


def _drag(page: Page, name: str, moves: int) -> None:
    """Move a handle there and back in small steps."""
    box = page.get_by_role("slider", name=name).first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for move in range(moves):
        page.mouse.move(x - move % 25, y - move % 25)
        page.wait_for_timeout(40)
    page.mouse.up()


def _scrub(page: Page, name: str, moves: int, most: int = 15) -> None:
    page.get_by_role("slider", name=name).first.focus()
    for move in range(moves):
        page.keyboard.press("ArrowLeft" if move % (2 * most) < most else "ArrowRight")
        page.wait_for_timeout(40)


def _maps() -> KernelMaps:
    """A run of 31 moments of a layer of 64 x 32 kernels."""
    norms = torch.rand((31, 64, 32), generator=torch.Generator().manual_seed(0))
    return KernelMaps(History(snapshots={"conv": norms}, snapshot_epochs=list(range(31))))


def _paths() -> Paths:
    return Paths(read_table(STUDIES / "digits.csv"), pd.read_csv(STUDIES / "digits_layers.csv"))


def _through() -> ThroughLayers:
    models = {
        name: hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=seed).eval()
        for seed, name in enumerate(("dense", "regularised"))
    }
    return ThroughLayers(models, hg.load_data("digits", device="cpu"))


def _press_channels(page: Page, moves: int) -> None:
    """Walk over a layer's channels and switch each off and on again."""
    page.get_by_role("img", name="regularised, third").focus()
    for move in range(moves):
        page.keyboard.press("Enter" if move % 3 else "ArrowRight" if move % 120 < 60 else "ArrowLeft")
        page.wait_for_timeout(40)


_FIGURES: dict[str, tuple[Callable[[], LiveFigure], str, Callable[[Page, int], None]]] = {
    "norms": (Norms, "pointermove", lambda page, moves: _drag(page, "kernels a and b", moves)),
    "penalties": (
        Penalties,
        "pointermove",
        lambda page, moves: _drag(page, "scale of the kernel of output 0, input 0", moves),
    ),
    "kernel maps": (_maps, "input", lambda page, moves: _scrub(page, "epoch", moves)),
    "paths": (_paths, "input", lambda page, moves: _scrub(page, "strength", moves, most=4)),
    "through the layers": (_through, "keydown", _press_channels),
}


def _open(page: Page, figure: LiveFigure, folder: Path) -> None:
    (folder / "figure.html").write_text(figure.page(), encoding="utf-8")
    page.goto((folder / "figure.html").as_uri())
    page.locator("section.hgsr").wait_for()


def milliseconds(page: Page, event: str, move: Callable[[Page, int], None], moves: int) -> np.ndarray:
    """From each input event to the end of the frame that shows its effect."""
    page.evaluate(_WATCH, event)
    move(page, moves)
    page.wait_for_timeout(200)
    return np.array(page.evaluate("painted"))


def heap(page: Page) -> float:
    """Megabytes that the page's objects take, once nothing is left to collect.

    The first collection leaves the memory of dropped pictures to be freed behind it, the second has it.
    """
    return page.evaluate("(gc(), gc(), performance.memory.usedJSHeapSize / 1e6)")


def figure_row(
    name: str, limited: Browser, unlimited: Browser, folder: Path, moves: int
) -> dict[str, object]:
    """One figure's times, on a screen and without one, and its heap before and after ten times the moves."""
    make, event, move = _FIGURES[name]
    row: dict[str, object] = {"figure": name, "moves": moves}
    for where, browser in {"60 Hz": limited, "no limit": unlimited}.items():
        page = browser.new_page()
        _open(page, make(), folder)
        found = milliseconds(page, event, move, moves)
        row |= {f"median ms, {where}": round(float(np.median(found)), 1)}
        row |= {f"p95 ms, {where}": round(float(np.percentile(found, 95)), 1)}
        page.close()
    page = limited.new_page()
    _open(page, make(), folder)
    for count in (2 * moves, 10 * moves):
        move(page, count)
        row[f"heap MB after {count if count == 2 * moves else 12 * moves} moves"] = round(heap(page), 2)
    page.close()
    return row


def trainer_row(browser: Browser, folder: Path) -> dict[str, object]:
    """Frames a second while the page trains, and the longest time between two frames."""
    page = browser.new_page()
    _open(page, Trainer(epochs=40), folder)
    page.get_by_role("button", name="Train").click()
    page.wait_for_timeout(1000)
    between = np.diff(page.evaluate(_FRAMES))
    page.close()
    row: dict[str, object] = {"figure": "trainer", "frames a second": round(float(1000 / between.mean()), 1)}
    row["longest ms between frames"] = round(float(between.max()), 1)
    if shutil.which("node"):
        row |= {f"epoch s, {name}": round(spent, 2) for name, spent in epoch_seconds(folder).items()}
    return row


def epoch_seconds(folder: Path) -> dict[str, float]:
    """Processor seconds of an epoch of the trainer in Node, best of three: dense, and all kernels dead."""
    (folder / "module.mjs").write_text(one_text("training.js"), encoding="utf-8")
    script = f'import * as live from "./module.mjs";\n{_EPOCHS}'
    (folder / "epochs.mjs").write_text(script, encoding="utf-8")
    run = subprocess.run(["node", "epochs.mjs"], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def _launch(playwright: Playwright, *flags: str) -> Browser:
    return playwright.chromium.launch(executable_path=_CHROMIUM, args=[*_FLAGS, *HEAP, *flags])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 where no Chromium is found."""
    options = options_of("benchmarks.live", __doc__, "two figures, fewer moves", arguments)
    if _CHROMIUM is None:
        print("no Chromium, so no live figure was timed: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        limited, unlimited = _launch(playwright), _launch(playwright, *_UNLIMITED)
        moves, names = (5, list(_FIGURES)[:2]) if options.quick else (MOVES, list(_FIGURES))
        rows = [figure_row(name, limited, unlimited, Path(place), moves) for name in names]
        table = pd.DataFrame([*rows, trainer_row(limited, Path(place))])
    print(table.set_index("figure").T.to_string(na_rep=""))
    table.to_csv(options.out / "live.csv", index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
