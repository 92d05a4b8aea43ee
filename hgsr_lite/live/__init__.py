"""Figures that answer the hand, in a notebook and in a page without Python. Start in `figure`."""

from __future__ import annotations

from hgsr_lite.live.figure import LiveFigure
from hgsr_lite.live.maps import KernelMaps
from hgsr_lite.live.norms import Norms
from hgsr_lite.live.panel import playground
from hgsr_lite.live.paths import Paths
from hgsr_lite.live.penalties import Penalties
from hgsr_lite.live.through import ThroughLayers
from hgsr_lite.live.trainer import Trainer
from hgsr_lite.live.workbench import Workbench, compare

__all__ = [
    "KernelMaps",
    "LiveFigure",
    "Norms",
    "Paths",
    "Penalties",
    "ThroughLayers",
    "Trainer",
    "Workbench",
    "compare",
    "playground",
]
