"""Figures that answer the hand: panels of controls over pictures, and the playground. Start in `panel`."""

from __future__ import annotations

from hgsr_lite.live.norms import norm_explorer
from hgsr_lite.live.panel import playground
from hgsr_lite.live.penalties import penalty_explorer
from hgsr_lite.live.training import history_scrubber
from hgsr_lite.live.workbench import Choice, Workbench, before_and_after, compare, judge

__all__ = [
    "Choice",
    "Workbench",
    "before_and_after",
    "compare",
    "history_scrubber",
    "judge",
    "norm_explorer",
    "penalty_explorer",
    "playground",
]
