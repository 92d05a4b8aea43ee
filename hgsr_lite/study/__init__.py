"""A study is a file, its runs are files, its table is committed. Start in `study`."""

from __future__ import annotations

from hgsr_lite.study.analysis import (
    PATH,
    against,
    at_levels,
    front,
    hypervolume,
    summary,
)
from hgsr_lite.study.baselines import held_zeros, zero_lowest_
from hgsr_lite.study.distractors import READINGS, kept_channels, precision_and_recall
from hgsr_lite.study.grid import recipes_of
from hgsr_lite.study.intervals import confidence_half_width
from hgsr_lite.study.job import Images, make_run, network_of
from hgsr_lite.study.measurement import SPARSITY_METRICS, Measurement, measure
from hgsr_lite.study.recovery import RECOVERY, has_readings, seeds_that_found
from hgsr_lite.study.shown_paths import CURVES, curves, dense_accuracy, is_baseline, picture_of
from hgsr_lite.study.study import Study, make_here
from hgsr_lite.study.tables import read_table, with_paths
from hgsr_lite.study.verdicts import accuracy_at, choices, prepared

__all__ = [
    "CURVES",
    "PATH",
    "READINGS",
    "RECOVERY",
    "SPARSITY_METRICS",
    "Images",
    "Measurement",
    "Study",
    "accuracy_at",
    "against",
    "at_levels",
    "choices",
    "confidence_half_width",
    "curves",
    "dense_accuracy",
    "front",
    "has_readings",
    "held_zeros",
    "hypervolume",
    "is_baseline",
    "kept_channels",
    "make_here",
    "make_run",
    "measure",
    "network_of",
    "picture_of",
    "precision_and_recall",
    "prepared",
    "read_table",
    "recipes_of",
    "seeds_that_found",
    "summary",
    "with_paths",
    "zero_lowest_",
]
