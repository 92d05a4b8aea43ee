"""A truth to find: among the input channels, some show the labelled image, the others say nothing.

Which channels does a network still read after training with a penalty? Precision and recall tell how
near that comes to the truth.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from hgsr_lite.comparison import Configuration, table_of_runs, train_configuration
from hgsr_lite.data import Data
from hgsr_lite.groups import choose, kernel_stack, weight_layers
from hgsr_lite.plots import MARKERS, color, confidence_half_width
from hgsr_lite.widgets import FAMILIES

_PANELS = {**FAMILIES, "no groups": ("l1", "l2")}

READINGS = {"below 1e-3": {"tolerance": 1e-3}, "below a tenth": {"relative": 0.1}}
"""Two ways to call a channel ignored: all its weights below 1e-3, or below a tenth of the layer's largest."""
COLUMNS = [
    "strength",
    *(f"{name}, {what}" for what in READINGS for name in ("kept", "precision", "recall")),
    "validation accuracy",
]


def first_layer(model: nn.Module) -> str:
    """The name of the layer that reads the image.

    >>> first_layer(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)))
    '0'
    """
    return weight_layers(model)[0].name


def kept_channels(
    model: nn.Module, layer: str | None = None, *, tolerance: float = 0.0, relative: float = 0.0
) -> tuple[int, ...]:
    """The input channels that a layer (by default the first) still reads.

    A channel is kept if the largest of its weights, in absolute value, is not zero, not below
    `tolerance`, and not below `relative` times the largest weight of the layer. Raises `ValueError` for
    a layer that the model does not have.

    >>> layer = nn.Conv2d(3, 2, 1)
    >>> for channel, size in enumerate((1.0, 0.0, 0.01)):
    ...     layer.weight.data[:, channel] = size
    >>> kept_channels(layer), kept_channels(layer, relative=0.1)
    ((0, 2), (0,))
    """
    layers = {found.name: found for found in weight_layers(model)}
    chosen = layers[first_layer(model) if layer is None else choose("layer", layer, layers)]
    largest = kernel_stack(chosen.weight.detach(), chosen.layout).abs().amax((0, 1, 3))
    kept = (largest > 0) & (largest >= tolerance) & (largest >= relative * largest.max())
    return tuple(kept.nonzero().flatten().tolist())


def precision_and_recall(kept: Collection[int], relevant: Collection[int]) -> tuple[float, float]:
    """How much of what was kept is relevant, and how much of what is relevant was kept.

        precision = |kept and relevant| / |kept|,   recall = |kept and relevant| / |relevant|

    The precision of nothing is NaN: where nothing was kept, there is nothing to judge.

    >>> precision_and_recall({0, 2, 3, 5}, {0, 1})
    (0.25, 0.5)
    """
    both = len(set(kept) & set(relevant))
    return (both / len(set(kept)) if kept else math.nan), both / len(set(relevant))


def find_channels(
    configurations: Iterable[Configuration],
    data: Data,
    *,
    distractors: int = 7,
    kind: str = "noise",
    out: str | Path | None = None,
    progress: bool = True,
    processes: int | None = 1,
    **options: Any,
) -> pd.DataFrame:
    """Train every configuration on images with distractors; one row a run: what it kept, precision, recall.

    The distractors are drawn anew for each seed. Only the first layer is regularised, so that a strength
    may be right for it without being too much for the others. `options` are those of
    `train_configuration`, `out` and `processes` as in `compare`. A channel is read as kept in the two ways
    of `READINGS`.
    """

    row = partial(_row, distractors=distractors, kind=kind, options=options)
    return table_of_runs(configurations, row, COLUMNS, data, out, progress, processes)


def _row(
    configuration: Configuration, data: Data, distractors: int, kind: str, options: dict[str, Any]
) -> dict[str, Any]:
    extended = data.with_distractors(distractors, kind, configuration.seed)
    model, regularizer, history = train_configuration(
        configuration, extended, first_layer_only=True, **options
    )
    found: dict[str, Any] = {"strength": 0.0 if regularizer is None else regularizer.strength}
    for what, limits in READINGS.items():
        kept = kept_channels(model, **limits)
        precision, recall = precision_and_recall(kept, extended.relevant_channels)
        found |= {f"kept, {what}": len(kept), f"precision, {what}": precision, f"recall, {what}": recall}
    return {**found, "validation accuracy": history.records[-1]["validation accuracy"]}


def recovery_figure(table: pd.DataFrame, reading: str = "below 1e-3") -> Figure:
    """Precision and recall against the strength, a column of panels for each family of penalties.

    `table` is what `find_channels` returns. Means over the seeds with 95 % intervals (Student's t), cut off
    at 0 and 1; lines are shifted sideways a little, so that equal ones can be told apart. A point without
    a precision, where no seed kept anything, is left out.
    """
    choose("reading", reading, READINGS)
    rows = {family: [key for key in keys if key in set(table["method"])] for family, keys in _PANELS.items()}
    rows = {family: keys for family, keys in rows.items() if keys}
    figure, grid = plt.subplots(
        2,
        len(rows),
        squeeze=False,
        sharex="col",
        sharey=True,
        figsize=(1 + 2.9 * len(rows), 4.6),
        height_ratios=(2, 1),
        layout="constrained",
    )
    for column, (family, keys) in zip(grid.T, rows.items(), strict=True):
        for axes, figure_name in zip(column, ("precision", "recall"), strict=True):
            for number, key in enumerate(keys):
                _line(axes, table[table["method"] == key], f"{figure_name}, {reading}", number, key)
            axes.set(xscale="log", ylim=(-0.05, 1.05))
            axes.grid(alpha=0.3)
        column[0].set_title(family)
        column[1].set_xlabel("strength (fraction of the\nloss's gradient at the start)")
        column[0].legend(fontsize="small")
    for axes, figure_name in zip(grid[:, 0], ("precision", "recall"), strict=True):
        axes.set_ylabel(figure_name)
    return figure


def _line(axes: Axes, rows: pd.DataFrame, column: str, number: int, name: str) -> None:
    points = rows.groupby("amount")[column].agg(["mean", "std", "count"]).dropna(subset="mean")
    half = confidence_half_width(points["std"], points["count"])
    low, high = (points["mean"] - half).clip(0, 1), (points["mean"] + half).clip(0, 1)
    axes.errorbar(
        points.index * 1.07 ** (number - 1),
        points["mean"],
        [points["mean"] - low, high - points["mean"]],
        color=color(number),
        marker=MARKERS[number],
        markersize=4,
        linewidth=1,
        capsize=2,
        label=name,
    )
