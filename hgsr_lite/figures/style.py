"""Colours, markers and the colour map of all figures: told apart with any colour vision and in grey."""

from __future__ import annotations

COLOR_MAP = "viridis"  # perceptually uniform, readable with any colour vision and in grey
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's palette: eight colours that stay apart with any colour vision."""
ZERO_HATCH = "//////"  # grey on white: an exact zero looks like no colour of the map
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def color(number: int) -> str:
    """The number-th colour of the palette, from the start again after eight."""
    return COLORS[number % len(COLORS)]
