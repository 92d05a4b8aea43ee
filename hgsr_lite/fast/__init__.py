"""The same numbers, faster.

Start in `plan`, which chooses for each set of layers; `cpu` is compiled by numba, `gpu` stacked or in
one launch.
"""

from __future__ import annotations

from hgsr_lite.fast.gpu.stacked import buckets, send, stacked_gradient_
from hgsr_lite.fast.plan import Plan, make_plan

__all__ = [
    "Plan",
    "buckets",
    "make_plan",
    "send",
    "stacked_gradient_",
]
