"""The same numbers, faster.

Start in `plan`, which chooses for each set of weights: `plain` is the readable formula, `cpu` is compiled by
numba, `gpu` stacked or in one launch. All keep the contract of `Plan`. For networks with dead kernels start
in `living`; `operators` makes PyTorch know them.
"""

from __future__ import annotations

from hgsr_lite.fast.gpu.stacked import buckets, send, stacked_gradient_
from hgsr_lite.fast.living import LivingKernels, Window, batch_innermost, plain_sparse_convolution
from hgsr_lite.fast.operators import has_numba, living_convolution, living_max_pool, living_mean_pool
from hgsr_lite.fast.plain import plain_gradient_
from hgsr_lite.fast.plan import Plan, Plans, make_plan

__all__ = [
    "LivingKernels",
    "Plan",
    "Plans",
    "Window",
    "batch_innermost",
    "buckets",
    "has_numba",
    "living_convolution",
    "living_max_pool",
    "living_mean_pool",
    "make_plan",
    "plain_gradient_",
    "plain_sparse_convolution",
    "send",
    "stacked_gradient_",
]
