"""The picture of `dead_kernels`: how many times as fast against the share of dead kernels."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes


def draw(layers: pd.DataFrame, path: Path) -> None:
    """A panel for each number of images, on one thread; break-even and the ideal line."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    one = layers[layers["threads"] == 1]
    batches = sorted(one["batch"].unique())
    figure, axes = plt.subplots(
        1, len(batches), figsize=(4.6 * len(batches), 4.4), sharey=True, squeeze=False, layout="constrained"
    )
    for place, batch in zip(axes[0], batches, strict=True):
        _panel(place, one[one["batch"] == batch])
        place.set_title("one image" if batch == 1 else f"{batch} images")
    axes[0, 0].set_ylabel("times as fast as the best dense form")
    axes[0, -1].legend(fontsize=7)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _panel(axes: Axes, table: pd.DataFrame) -> None:
    living = np.geomspace(0.5, 0.01)
    axes.plot(1 - living, 1 / living, "--", color="0.4", label="ideal: 1 / share alive")
    axes.axhline(1, color="0.4", linewidth=1)
    axes.text(0.99, 0.95, "break-even", color="0.3", fontsize=8, ha="right", va="top")
    for name, rows in table.groupby("layer", sort=False):
        axes.plot(rows["dead"].astype(float), rows["times as fast"], marker="o", markersize=3, label=name)
    axes.set_yscale("log")
    axes.set_yticks([0.25, 0.5, 1, 2, 4, 8, 16, 32, 64], ["1/4", "1/2", 1, 2, 4, 8, 16, 32, 64])
    axes.minorticks_off()
    axes.set_xlabel("share of dead kernels")
