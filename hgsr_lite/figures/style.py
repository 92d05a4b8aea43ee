"""Colours, markers, the colour map and the names of lines: told apart with any colour vision and in grey."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

COLOR_MAP = "viridis"  # perceptually uniform, readable with any colour vision and in grey
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's palette: eight colours that stay apart with any colour vision."""
ZERO_HATCH = "//////"  # grey on white: an exact zero looks like no colour of the map
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def color(number: int) -> str:
    """The number-th colour of the palette, from the start again after eight."""
    return COLORS[number % len(COLORS)]


def label_the_ends(axes: Axes, ends: Mapping[str, float], least_gap: float = 0.08) -> None:
    """Write each line's name at the right, as high as its last visible point, but never over another."""
    low, high = axes.get_ylim()
    numbers = {name: number for number, name in enumerate(ends)}
    taken = 1 + least_gap
    for name in sorted(ends, key=lambda name: -ends[name]):
        taken = min((ends[name] - low) / (high - low), taken - least_gap)
        style = {"color": color(numbers[name]), "weight": "bold", "va": "center"}
        axes.text(1.02, taken, f"{name}", transform=axes.transAxes, **style)
