"""A study is a file, its runs are files, its table is committed. Start in `study`."""

from __future__ import annotations

from hgsr_lite.study.analysis import PATH, against, at_levels, front, hypervolume, summary
from hgsr_lite.study.baselines import held_zeros, zero_lowest_
from hgsr_lite.study.comparison import (
    FIGURES,
    Configuration,
    compare,
    control_grid,
    find_channels,
    penalty_grid,
    sparsest_within,
)
from hgsr_lite.study.distractors import READINGS, kept_channels, precision_and_recall
from hgsr_lite.study.intervals import confidence_half_width
from hgsr_lite.study.job import Images, make_run
from hgsr_lite.study.measurement import SHARES, Measurement, measure
from hgsr_lite.study.study import Study
from hgsr_lite.study.tables import read_table

__all__ = [
    "FIGURES",
    "PATH",
    "READINGS",
    "SHARES",
    "Configuration",
    "Images",
    "Measurement",
    "Study",
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
    "make_run",
    "measure",
    "penalty_grid",
    "precision_and_recall",
    "read_table",
    "sparsest_within",
    "summary",
    "zero_lowest_",
]
