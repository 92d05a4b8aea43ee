"""Where a soft threshold lies: one solver for each pair of exponents. `thresholds` holds the convex problems,
`half_thresholds` those with an exponent of 1/2; `hgsr_lite.proximal` chooses.
"""

from __future__ import annotations

from hgsr_lite.solvers.thresholds import SortedKernels

__all__ = [
    "SortedKernels",
]
