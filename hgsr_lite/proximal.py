"""Proximal operators: a step that pulls weights towards zero and lets them arrive there.

    prox(W) = argmin over V of  0.5 |V - W|^2 + step * penalty(V)

A gradient step can only shrink a weight towards zero and overshoot it; this one sets it to exactly
zero. Three facts bring all eleven penalties down to the thresholds of `thresholds` and
`half_thresholds`.

1. Groups share no weight, so each group is a problem of its own.
2. A penalty sees only magnitudes, so V has the signs of W and |V| never exceeds |W|.
3. If a penalty sees a kernel only through its l2 norm n, then the nearest kernel of norm r is the old
   one scaled by r / n, at distance |n - r|. So `hsq_gl` and `hsqrt_gl` are `es` and `gl12` on the vector
   of kernel norms, and `gl` is the lasso on the one norm of the group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hgsr_lite.arguments import check_number
from hgsr_lite.groups import Layout, kernel_stack, weight_of_stack, widest_dtype
from hgsr_lite.solvers import SortedKernels, half_thresholds, thresholds
from hgsr_lite.table import PenaltySpec

_SOLVERS: Mapping[tuple[float, float], Callable[[SortedKernels, Tensor], Tensor]] = {
    (1.0, 1.0): thresholds.lasso_threshold,
    (1.0, 2.0): thresholds.exclusive_threshold,
    (2.0, 0.5): thresholds.rooted_exclusive_threshold,
    (2.0, 2.0): thresholds.squared_exclusive_threshold,
    (1.0, 0.5): half_thresholds.half_threshold,
    (0.5, 0.5): half_thresholds.rooted_half_threshold,
    (0.5, 2.0): half_thresholds.squared_half_threshold,
}
"""Exponents (p, q) of a sum of l1 norms -> the solver that says where its soft threshold lies."""


def solved_exponents(norm: int, inner: float, outer: float) -> tuple[float, float]:
    """The exponents (p, q) of the problem that is solved for a row: fact 3 turns every l2 norm into an l1.

    A sum of squared l2 norms is the square of one l2 norm, the group's: there p moves out of the sum.

    >>> solved_exponents(2, 2.0, 0.5), solved_exponents(2, 1.0, 2.0)  # gl, hsq_gl
    ((1.0, 1.0), (1.0, 2.0))
    """
    return (1.0, inner * outer) if norm == inner == 2 else (inner, outer)


@torch.no_grad()
def prox(
    row: PenaltySpec,
    grouping: str,
    weight: Tensor,
    step: float,
    layout: Layout = Layout(),
    l1_step: float = 0.0,
) -> Tensor:
    """The proximal operator of `step * penalty` for one row of the table; mostly reached as `Penalty.prox`.

        argmin over V of  0.5 |V - W|^2 + step * penalty(V) + l1_step * |V|_1

    Returns a new tensor of the weight's shape, dtype, device and memory format, computed in float64, for
    weights from 1e-38 to 1e38 and steps of any size; how near the optimum, see below. `step` is a learning
    rate times a strength; at `step=0` (and `l1_step=0`) the weight comes back as it is.

    The l1 term costs one soft threshold, applied to the weight first. With W and V >= 0,

        0.5 |V - W|^2 + s sum V = 0.5 |V - (W - s)|^2 + constant,

    and where W_i < s, the negative target W_i - s may be replaced by 0: no penalty here falls as V_i
    grows, so V_i = 0 is best for both targets.

    `es`, `gl12`, `gl`, `hsq_gl`, `hsqrt_gl`, `l1` and `l2` are closed forms; `hsqrt_es` and `hsq_es` solve
    one convex equation per group; all of these are exact to the dtype's rounding. `hsqrt_gl12` is searched to
    1e-10 of |W|^2. `hsq_gl12` takes the best of six candidates: the best there is in small groups, and in
    groups of 64 to 512 kernels within 8e-5 of |W|^2 of the optimum wherever it was measured. Both are told in
    `hgsr_lite.solvers.half_thresholds`. Where two points are equally good, zero is returned.

    Raises `ValueError` for a step that is negative or not finite, for a weight with NaN or infinite
    entries (`NotFiniteError`), and for a row whose exponents no solver here knows. Sources: Parikh and
    Boyd, Proximal Algorithms, 2014; Jenatton et al., arXiv 1009.2139 (tree norms); Hu et al., JMLR 2017
    (l_{p,q}); Xu et al., 2012 (half thresholding).

    >>> from hgsr_lite.table import PENALTIES
    >>> prox(PENALTIES["l1"], "feature", torch.tensor([[3., -1., 0.5]]), step=1.0)
    tensor([[2., 0., 0.]])
    >>> prox(PENALTIES["es"], "neuron", torch.tensor([[3., -1., 0.5]]), step=0.25)
    tensor([[2., 0., 0.]])
    >>> prox(PENALTIES["hsq_gl12"], "feature", torch.tensor([[[4., 4.], [1., 1.]]]), step=1.0)
    tensor([[[3., 3.],
             [0., 0.]]])
    """
    advice = "give a learning rate times a strength"
    step, l1_step = check_number("step", step, advice), check_number("l1_step", l1_step, advice)
    stack = kernel_stack(weight, layout)
    if not weight.isfinite().all():
        raise NotFiniteError(
            f"a weight of shape {tuple(weight.shape)} has {int((~weight.isfinite()).sum())} NaN or infinite "
            "entries: lower the learning rate or the strength, or start again from a finite weight"
        )
    if step == 0 and l1_step == 0:
        return weight.clone()
    wide = stack.to(widest_dtype(stack.device))
    magnitudes = (wide.abs() - l1_step).clamp(min=0)
    if step > 0:
        magnitudes = _shrink(row, grouping, magnitudes, step)
    # Adding zero turns the -0 of a negative weight into 0.
    signed = magnitudes * wide.sign() + 0.0
    return torch.empty_like(weight).copy_(weight_of_stack(signed, layout, weight.shape))


class NotFiniteError(FloatingPointError, ValueError):
    """Weights are NaN or infinite: a run has diverged, or a wrong tensor was given."""


def _shrink(row: PenaltySpec, grouping: str, stack: Tensor, step: float) -> Tensor:
    if row.norm == row.inner == row.outer == 1:
        return (stack - step).clamp(min=0)
    if row.norm == row.inner == 2 and row.outer == 1:
        return stack / (1 + 2 * step)
    by_group = stack.transpose(1, 2) if grouping == "feature" else stack
    shrunk = _shrink_groups(row, by_group.flatten(0, 1), step).view(by_group.shape)
    return shrunk.transpose(1, 2) if grouping == "feature" else shrunk


def _solver(row: PenaltySpec) -> Callable[[SortedKernels, Tensor], Tensor]:
    exponents = solved_exponents(row.norm, row.inner, row.outer)
    if exponents not in _SOLVERS:
        raise ValueError(
            f"{row.title!r} has no proximal step: no solver for the exponents p = {exponents[0]:g}, "
            f"q = {exponents[1]:g}; train with its gradient, or add a solver to hgsr_lite.solvers"
        )
    return _SOLVERS[exponents]


def _shrink_groups(row: PenaltySpec, groups: Tensor, step: float) -> Tensor:
    """Magnitudes (groups, kernels, elements) after the prox.

    Each group is first divided by its largest magnitude M, and the step multiplied by M^(degree - 2):
    the same problem in units in which no square can overflow or vanish.
    """
    scale = groups.amax((1, 2), keepdim=True)
    scale = torch.where(scale > 0, scale, 1.0)
    limits = torch.finfo(groups.dtype)
    scaled_step = (step * scale.pow(row.degree - 2)).clamp(limits.tiny, limits.max**0.25)
    unit = groups / scale
    norms = _thresholded(row, unit)
    threshold = _solver(row)(SortedKernels.of(norms), scaled_step)
    # What is left within rounding of nothing is nothing: times a huge step it would be far from the optimum.
    kept = norms * (1 - 4 * limits.eps) > threshold
    if row.norm == 2:
        factor = torch.where(kept, 1 - threshold / norms, 0.0)
        return groups * factor.view(len(groups), -1, 1)
    return torch.where(kept.view(groups.shape), groups - scale * threshold, 0.0)


def _thresholded(row: PenaltySpec, groups: Tensor) -> Tensor:
    """What the penalty's solver thresholds: (groups, kernels, elements).

    With p = 1 the kernels' borders play no part: their l1 norms add up as if the group were one kernel.
    """
    if row.norm == 1:
        return groups.flatten(1).unsqueeze(1) if row.inner == 1 else groups
    norms = torch.linalg.vector_norm(groups, dim=-1)
    if row.inner == 2:
        norms = torch.linalg.vector_norm(norms, dim=1, keepdim=True)
    return norms.unsqueeze(1 if row.inner == 1 else 2)
