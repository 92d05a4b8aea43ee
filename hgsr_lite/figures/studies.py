"""What a table of runs shows: paths of accuracy against sparsity, and known truths found or missed."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hgsr_lite.arguments import choose
from hgsr_lite.figures.style import MARKERS, color
from hgsr_lite.study import FIGURES, READINGS, confidence_half_width
from hgsr_lite.table import PENALTY_FAMILIES

_PANELS = {**PENALTY_FAMILIES, "no groups": ("l1", "l2")}


def paths_figure(
    table: pd.DataFrame,
    figures: Iterable[str] = FIGURES,
    *,
    by: str = "method",
    accuracy: str = "validation accuracy after zeroing",
    floor: float = 0.8,
) -> Figure:
    """Accuracy against sparsity figures: one panel a figure, one line a method, joined in order of amount.

    A point is a mean over seeds with its 95 % interval; accuracies below `floor` are cut off, with
    their intervals, so that the differences that matter can be seen. A path that turns back is a strength
    that no longer makes sparser.
    """
    names = [choose("column", name, table.columns) for name in figures]
    size = {"figsize": (1.5 + 2.8 * len(names), 3.8), "layout": "constrained"}
    figure, grid = plt.subplots(1, len(names), squeeze=False, sharey=True, **size)
    for number, (name, rows) in enumerate(table.groupby(by, sort=False)):
        style = {"color": color(number), "marker": MARKERS[number % len(MARKERS)], "label": name}
        groups = rows.groupby("amount")
        half = 100 * confidence_half_width(groups[accuracy].std(), groups[accuracy].count())
        for axes, column in zip(grid[0], names, strict=True):
            x, y = 100 * groups[column].mean(), 100 * groups[accuracy].mean()
            # The interval of a point below the panel would cross it as a line that belongs to nothing.
            inside = half * (y >= 100 * floor)
            axes.errorbar(x, y, yerr=inside, capsize=2, markersize=4, linewidth=1, elinewidth=0.6, **style)
            axes.set(xlabel=f"{column} (%)", xlim=(-4, 104), ylim=(100 * floor, 100.8))
            axes.grid(alpha=0.3)
    grid[0][0].set_ylabel(f"{accuracy} (%)")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


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
