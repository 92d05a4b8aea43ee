"""The same numbers, faster.

Start in `plan`, which chooses for each set of weights: `plain` is the readable formula, `cpu` is compiled by
numba, `gpu` stacked or in one launch. All keep the contract of `Plan`.
"""

from __future__ import annotations

from hgsr_lite.fast.gpu.stacked import buckets, send, stacked_gradient_
from hgsr_lite.fast.plain import plain_gradient_
from hgsr_lite.fast.plan import Plan, Plans, make_plan

__all__ = [
    "Plan",
    "Plans",
    "buckets",
    "make_plan",
    "plain_gradient_",
    "send",
    "stacked_gradient_",
]
