"""The live figures in Chromium: from an input event to the painted picture, and the trainer's speed.

`python -m benchmarks.live` prints one row a figure: the median and the 95th percentile over 50 moves, in
milliseconds; then the seconds of processor time that an epoch of the trainer takes in Node, dense and empty.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from playwright.sync_api import Page, sync_playwright

from hgsr_lite.live import KernelMaps, LiveFigure, Norms, Penalties
from hgsr_lite.live.modules import one_text
from hgsr_lite.training import History

MOVES = 50
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_WATCH = """
  window.painted = [];
  for (const kind of ["pointermove", "input"]) {
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


def _drag(page: Page, name: str) -> None:
    """Move a handle there and back in small steps."""
    box = page.get_by_role("slider", name=name).first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for move in range(MOVES):
        page.mouse.move(x - move % 25, y - move % 25)
        page.wait_for_timeout(40)
    page.mouse.up()


def _scrub(page: Page, name: str) -> None:
    page.get_by_role("slider", name=name).focus()
    for move in range(MOVES):
        page.keyboard.press("ArrowLeft" if move % 30 < 15 else "ArrowRight")
        page.wait_for_timeout(40)


def _maps() -> KernelMaps:
    """A run of 31 moments of a layer of 64 x 32 kernels."""
    norms = torch.rand((31, 64, 32), generator=torch.Generator().manual_seed(0))
    return KernelMaps(History(snapshots={"conv": norms}, snapshot_epochs=list(range(31))))


_FIGURES: dict[str, tuple[Callable[[], LiveFigure], Callable[[Page], None]]] = {
    "norms": (Norms, lambda page: _drag(page, "kernels a and b")),
    "penalties": (Penalties, lambda page: _drag(page, "scale of the kernel of output 0, input 0")),
    "kernel maps": (_maps, lambda page: _scrub(page, "epoch")),
}


def milliseconds(page: Page, figure: LiveFigure, move: Callable[[Page], None], folder: Path) -> np.ndarray:
    """From each input event to the end of the frame that shows its effect."""
    (folder / "figure.html").write_text(figure.page(), encoding="utf-8")
    page.goto((folder / "figure.html").as_uri())
    page.locator("section.hgsr").wait_for()
    page.evaluate(_WATCH)
    move(page)
    page.wait_for_timeout(200)
    return np.array(page.evaluate("painted"))


def epoch_seconds(folder: Path) -> dict[str, float]:
    """Processor seconds of an epoch of the trainer in Node, best of three: dense, and all kernels dead."""
    (folder / "module.mjs").write_text(one_text("training.js"), encoding="utf-8")
    script = f'import * as live from "./module.mjs";\n{_EPOCHS}'
    (folder / "epochs.mjs").write_text(script, encoding="utf-8")
    run = subprocess.run(["node", "epochs.mjs"], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def main() -> int:
    """Measure and print; 1 where no Chromium is found."""
    if _CHROMIUM is None:
        print("no Chromium: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        print(f"{'figure':12} {'moves':>6} {'median':>8} {'p95':>8}  ms from input to picture")
        for name, (make, move) in _FIGURES.items():
            found = milliseconds(browser.new_page(), make(), move, Path(place))
            print(f"{name:12} {len(found):6} {np.median(found):8.1f} {np.percentile(found, 95):8.1f}")
        if shutil.which("node"):
            spent = epoch_seconds(Path(place))
            print(
                "an epoch of the trainer, processor time:",
                ", ".join(f"{k} {v:.2f} s" for k, v in spent.items()),
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
