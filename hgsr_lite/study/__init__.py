"""Many trainings as one table: grids, controls, known truths. Start in `comparison`."""

from __future__ import annotations

from hgsr_lite.study.analysis import PATH, against, at_levels, front, hypervolume, summary
from hgsr_lite.study.baselines import UNITS, held_zeros, prune_
from hgsr_lite.study.comparison import (
    ALIKE_IN_BOTH_GROUPINGS,
    CONTROLS,
    FIGURES,
    Configuration,
    compare,
    control_grid,
    measure,
    penalty_grid,
    sparsest_within,
)
from hgsr_lite.study.distractors import READINGS, find_channels, kept_channels, precision_and_recall
from hgsr_lite.study.intervals import confidence_half_width

__all__ = [
    "ALIKE_IN_BOTH_GROUPINGS",
    "CONTROLS",
    "FIGURES",
    "PATH",
    "READINGS",
    "UNITS",
    "Configuration",
    "against",
    "at_levels",
    "compare",
    "confidence_half_width",
    "control_grid",
    "find_channels",
    "front",
    "held_zeros",
    "hypervolume",
    "kept_channels",
    "measure",
    "penalty_grid",
    "precision_and_recall",
    "prune_",
    "sparsest_within",
    "summary",
]
