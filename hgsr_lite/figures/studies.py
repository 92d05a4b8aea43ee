"""What a table of runs shows: paths of accuracy against sparsity, and known truths found or missed."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hgsr_lite.arguments import choose
from hgsr_lite.figures.style import MARKERS, color, label_the_ends
from hgsr_lite.study import READINGS, confidence_half_width
from hgsr_lite.table import PENALTY_FAMILIES

MOST_LINES = 3
"""Of one figure that answers one question."""
_PANELS = {**PENALTY_FAMILIES, "no groups": ("l1", "l2")}


def answer_figure(
    lines: Mapping[str, pd.DataFrame],
    column: str,
    title: str,
    *,
    accuracy: str = "validation accuracy after zeroing",
    floor: float = 0.8,
    label: str = "",
    dense: pd.DataFrame | None = None,
) -> Figure:
    """One question, one panel, at most three lines, the answer as its title.

    `lines` maps a label to the runs of one method; each point is an `amount`, a mean over seeds with its
    95 % interval, joined in order of amount. `column` is a share in 0..1 and `label` what the axis calls it.
    Accuracies below `floor` are cut off. The mean of the runs `dense` is a
    dotted line. Raises `ValueError` for more than three lines: ask one question.

    >>> runs = pd.DataFrame({"amount": [1, 1], "sparse": [0.5, 0.5], "right": [0.9, 1.0]})
    >>> figure = answer_figure({"l1": runs}, "sparse", "Half is sparse", accuracy="right", floor=0.5)
    >>> figure.axes[0].get_title(loc="left")
    'Half is sparse'
    """
    if len(lines) > MOST_LINES:
        raise ValueError(f"{len(lines)} lines are too many for one question: give at most {MOST_LINES}")
    figure, axes = plt.subplots(figsize=(7.4, 3.8), layout="constrained")
    if dense is not None:
        axes.axhline(100 * dense[accuracy].mean(), color="black", linewidth=0.9, linestyle=":")
        axes.text(104, 100 * dense[accuracy].mean(), "dense ", ha="right", va="bottom", fontsize="small")
    ends: dict[str, float] = {}
    for number, (name, rows) in enumerate(lines.items()):
        groups = rows.groupby("amount")
        x, y = 100 * groups[column].mean(), 100 * groups[accuracy].mean()
        half = 100 * confidence_half_width(groups[accuracy].std(), groups[accuracy].count())
        style = {"color": color(number), "marker": MARKERS[number], "markersize": 5, "linewidth": 1.4}
        # The interval of a point below the panel would cross it as a line that belongs to nothing.
        axes.errorbar(x, y, yerr=half * (y >= 100 * floor), capsize=3, elinewidth=0.8, **style)
        ends[name] = max([100 * floor, *y[y >= 100 * floor].tail(1)])
    axes.set(xlabel=f"{label or column} (%)", ylabel=f"{accuracy} (%)", xlim=(-4, 104))
    axes.set(ylim=(100 * floor, 101))
    axes.set_title(title, loc="left", fontsize="medium")
    label_the_ends(axes, ends)
    axes.grid(alpha=0.3)
    return figure


def recovery_figure(table: pd.DataFrame, reading: str = "below 1e-3") -> Figure:
    """Precision and recall against the strength, a column of panels for each family of penalties.

    `table` is one of runs with distractors. Lines join the means over the seeds; each seed is a small dot: a
    precision takes few values, mostly 1/8 and 1, so that an interval would say little. Lines are shifted
    sideways a little, so that equal ones can be told apart. A run without a precision, since nothing was
    kept, is left out.
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
    amounts = sorted(table.loc[table["amount"] > 0, "amount"].unique())
    for column, (family, keys) in zip(grid.T, rows.items(), strict=True):
        for axes, figure_name in zip(column, ("precision", "recall"), strict=True):
            for number, key in enumerate(keys):
                _line(axes, table[table["method"] == key], f"{figure_name}, {reading}", number, key)
            axes.set(xscale="log", ylim=(-0.05, 1.05))
            axes.set_xticks(amounts, [f"{amount:g}" for amount in amounts])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        column[0].set_title(family)
        column[1].set_xlabel("strength (fraction of the\nloss's gradient at the start)")
        column[0].legend(fontsize="small")
    for axes, figure_name in zip(grid[:, 0], ("precision", "recall"), strict=True):
        axes.set_ylabel(figure_name)
    return figure


def _line(axes: Axes, rows: pd.DataFrame, column: str, number: int, name: str) -> None:
    seeds = rows.dropna(subset=column)
    means = seeds.groupby("amount")[column].mean()
    aside = 1.07 ** (number - 1)
    axes.scatter(seeds["amount"] * aside, seeds[column], s=9, color=color(number), alpha=0.45)
    style = {"color": color(number), "marker": MARKERS[number], "markersize": 5, "linewidth": 1}
    axes.plot(means.index * aside, means, label=name, **style)
