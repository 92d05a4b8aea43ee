"""Pictures that are looked at (matplotlib).

Every function returns a figure and leaves showing it to the caller. Start in `training` for kernel maps;
`style` holds the colours of all.
"""

from __future__ import annotations

from hgsr_lite.figures.landing import (
    landing_legend,
    landing_map,
    landing_maps,
    landings,
    proximal_curves,
    proximal_step,
)
from hgsr_lite.figures.layers import feature_maps, through_the_layers
from hgsr_lite.figures.network import channel_strips, reading_norms
from hgsr_lite.figures.norms import (
    PLANES,
    group_sizes,
    level_sets,
    plain,
    space_values,
    square,
    steepest_descent,
    unit_balls,
    unit_balls_in_space,
    values,
)
from hgsr_lite.figures.reports import curves_figure, draw_pictures, numbers_of
from hgsr_lite.figures.studies import answer_figure, recovery_figure
from hgsr_lite.figures.style import COLOR_MAP, COLORS, MARKERS, color
from hgsr_lite.figures.training import (
    groups_over_epochs,
    kernel_map,
    model_kernel_maps,
    training_curves,
)

__all__ = [
    "COLORS",
    "COLOR_MAP",
    "MARKERS",
    "PLANES",
    "answer_figure",
    "channel_strips",
    "color",
    "curves_figure",
    "draw_pictures",
    "feature_maps",
    "group_sizes",
    "groups_over_epochs",
    "kernel_map",
    "landing_legend",
    "landing_map",
    "landing_maps",
    "landings",
    "level_sets",
    "model_kernel_maps",
    "numbers_of",
    "plain",
    "proximal_curves",
    "proximal_step",
    "reading_norms",
    "recovery_figure",
    "space_values",
    "square",
    "steepest_descent",
    "through_the_layers",
    "training_curves",
    "unit_balls",
    "unit_balls_in_space",
    "values",
]
