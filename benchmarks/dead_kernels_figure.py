"""The picture of `dead_kernels`: how many times as fast against the share of dead kernels."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes


def draw(layers: pd.DataFrame, networks: pd.DataFrame, path: Path) -> None:
    """Layers for one image and for many, then whole networks; one thread; break-even and the ideal line."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    most = layers["batch"].max()
    at_random = networks[networks["dead"] != "trained"]
    panels = [
        ("layers, one image", layers[layers["batch"] == 1], "layer"),
        (f"layers, {most} images", layers[layers["batch"] == most], "layer"),
        (f"networks, {networks['batch'].max()} images",
         at_random[at_random["batch"] == networks["batch"].max()], "network"),
    ]  # fmt: skip
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), sharey=True, layout="constrained")
    for place, (title, table, by) in zip(axes, panels, strict=True):
        _panel(place, table[table["threads"] == 1], by)
        place.set_title(title)
    axes[0].set_ylabel("times as fast as the best dense form")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _panel(axes: Axes, table: pd.DataFrame, by: str) -> None:
    living = np.geomspace(0.5, 0.01)
    axes.plot(1 - living, 1 / living, "--", color="0.4", label="ideal: 1 / share alive")
    axes.axhline(1, color="0.4", linewidth=1)
    axes.text(0.5, 1.04, "break-even", color="0.3", fontsize=8)
    for name, rows in table.groupby(by, sort=False):
        axes.plot(rows["dead"].astype(float), rows["times as fast"], marker="o", markersize=3, label=name)
    axes.set_yscale("log")
    axes.set_yticks([0.25, 0.5, 1, 2, 4, 8, 16, 32, 64], ["1/4", "1/2", 1, 2, 4, 8, 16, 32, 64])
    axes.minorticks_off()
    axes.set_xlabel("share of dead kernels")
    axes.legend(fontsize=7)
