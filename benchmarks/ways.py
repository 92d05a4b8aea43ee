"""The table behind "Many networks" in README.md.

    python -m benchmarks.ways

trains eight networks at a time, one after the other and in the way that `fit_many` takes by its rule, in
turn, and writes results/<device>/ways.csv, a row a call. Close other programs first; it takes some ten
minutes on two cores.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

import hgsr_lite as hg
from benchmarks.measurements import DEVICE, random_images

NETWORKS = 8
TURNS = 3
CASES = {
    "digits, 8x8 pixels": (("alexnet", "resnet18"), {"epochs": 30, "batch_size": 64}),
    "random images, 32x32 pixels": (("alexnet",), {"epochs": 8, "batch_size": 128}),
}


def rows() -> Iterable[dict[str, object]]:
    """One row a call of `fit_many`: what was asked for, how long it took."""
    sets = dict(zip(CASES, (hg.load_data("digits"), random_images(2560)), strict=True))
    method = hg.Penalised("hsq_gl12", strength=1e-5)
    for images, (models, training) in CASES.items():
        for model in models:
            for turn in range(TURNS):
                for way in ("loop", "auto"):
                    recipes = [
                        hg.Recipe(model, method=method, settings=hg.Settings(seed=seed, **training))
                        for seed in range(NETWORKS)
                    ]
                    started = time.perf_counter()
                    hg.fit_many(recipes, sets[images], way=way)
                    yield {
                        "images": images, "model": model, "networks": NETWORKS, "turn": turn,
                        "asked for": way, "seconds": time.perf_counter() - started,
                    }  # fmt: skip


if __name__ == "__main__":
    table = pd.DataFrame(rows())
    folder = Path(__file__).parent / "results" / DEVICE.type
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "ways.csv", index=False, float_format="%.2f")
    print(table.to_string(index=False))
