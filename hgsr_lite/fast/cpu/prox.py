"""The proximal step on every layer in one call, compiled for the CPU: `prox`, group by group.

Each group is copied into scratch memory, where its thresholds are found without sorting (see
`thresholds` and `half_groups`), and is then shrunk in place. The answers are those of `prox`, to
rounding, where there is a closed form or one minimum. `hsqrt_gl12` and `hsq_gl12` have many minima: where
two are nearly as good, the two versions may end in different ones. `prox` is the one to read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import carray, njit, prange

from hgsr_lite.fast.cpu import gradient, half_groups, half_thresholds, thresholds
from hgsr_lite.fast.cpu.compiling import compiled, mark_of
from hgsr_lite.fast.cpu.gradient import CompiledWork
from hgsr_lite.fast.cpu.half_groups import rooted_half, squared_half
from hgsr_lite.fast.cpu.half_thresholds import half_one, kernel_group
from hgsr_lite.fast.cpu.memory import pointer
from hgsr_lite.fast.cpu.thresholds import COMPILE, exclusive_one, rooted_exclusive, squared_exclusive
from hgsr_lite.penalties import Penalty
from hgsr_lite.proximal import solved_exponents
from hgsr_lite.table import PENALTIES, PenaltySpec

_PARALLEL_FROM = 1 << 15  # weights; below this a second thread costs more than it saves


LASSO, EXCLUSIVE, HALF = 1, 2, 3
_ONE_SET = {(1.0, 1.0): LASSO, (1.0, 2.0): EXCLUSIVE, (1.0, 0.5): HALF}
"""Exponents for which the kernels' borders play no part -> the solver of a group's magnitudes."""
_BY_KERNEL = {
    (2.0, 0.5): "rooted exclusive",
    (2.0, 2.0): "squared exclusive",
    (0.5, 0.5): "rooted half",
    (0.5, 2.0): "squared half",
}
"""Exponents for which every kernel has a threshold of its own -> the solver."""
_USUAL = 2.0**30  # groups larger or smaller than this are solved in a unit of their own size


@njit(**COMPILE)
def _total(w, start, kernels, elements, s_kernel):
    """The l1 norm of a group: not finite if one of its weights is not."""
    total = 0.0
    for k in range(kernels):
        kernel = w[start + k * s_kernel : start + k * s_kernel + elements]
        part = w.dtype.type(0)
        for e in range(elements):
            part += abs(kernel[e])
        total += part
    if total == np.inf:  # or only too large for the weights' own type
        total = 0.0
        for k in range(kernels):
            kernel = w[start + k * s_kernel : start + k * s_kernel + elements]
            for e in range(elements):
                total += np.float64(abs(kernel[e]))
    return total


@njit(**COMPILE)
def _unit_of(total):
    """1 for a group of usual size, else the power of 2 near its l1 norm.

    In that unit no square can vanish or overflow, and no weight is rounded.
    """
    if 1 / _USUAL < total < _USUAL:
        return 1.0
    return 2.0 ** min(max(np.floor(np.log2(total)), -126.0), 126.0)


@njit(**COMPILE)
def _gather(w, start, kernels, elements, s_kernel, l1_step, unit, a, by_element):
    """Magnitudes less the l1 step, in units; element by element, or kernel by kernel as in the weight."""
    real = a.dtype.type
    zero, shift, scale = real(0), real(l1_step), real(1 / unit)
    for k in range(kernels):
        kernel = w[start + k * s_kernel : start + k * s_kernel + elements]
        if by_element:
            for e in range(elements):
                a[e * kernels + k] = max(abs(kernel[e]) - shift, zero) * scale
        else:
            place = a[k * elements : (k + 1) * elements]
            for e in range(elements):
                place[e] = max(abs(kernel[e]) - shift, zero) * scale


@njit(fastmath={"contract"})
def _shrink(w, start, kernels, elements, s_kernel, l1_step, unit, threshold, factor):
    """Replace w by `sign(w) * factor * max(|w| - l1_step - unit * threshold, 0)`.

    What is left within rounding of nothing is nothing: times a huge step it would be far from the optimum.
    The sign is a number for the reason told in `thresholds`; adding zero turns -0 into 0, which
    is why this function does without `nsz`.
    """
    real = w.dtype.type
    zero, largest, some = real(0), np.finfo(w.dtype).max, real(1 - 4 * np.finfo(w.dtype).eps)
    for k in range(kernels):
        kernel = w[start + k * s_kernel : start + k * s_kernel + elements]
        bound, scale = real(min(unit * threshold[k] + l1_step, np.float64(largest))), factor[k]
        for e in range(elements):
            size = abs(kernel[e])
            sign = real(kernel[e] > zero) - real(kernel[e] < zero)
            left = max(size - bound, zero) * real(size * some > bound)
            kernel[e] = sign * (scale * left) + zero


@njit(**COMPILE)
def _norms(w, start, kernels, elements, s_kernel, l1_step, norms):
    """The l2 norm of each kernel after the l1 step; returns their sum.

    Squares are summed in float64: no float32 square may vanish.
    """
    shift, sum_of_norms = w.dtype.type(l1_step), 0.0
    for k in range(kernels):
        total = 0.0
        kernel = w[start + k * s_kernel : start + k * s_kernel + elements]
        for e in range(elements):
            size = abs(kernel[e]) - shift
            left = np.float64(size * w.dtype.type(not size <= 0))
            total += left * left
        norms[k] = np.sqrt(total)
        sum_of_norms += norms[k]
    return sum_of_norms


@njit(**COMPILE)
def _scale(bound, norm):
    """A soft threshold on a norm, as what its kernel is multiplied by; 0 within rounding of the threshold."""
    return 1 - bound / norm if norm * (1 - 4 * np.finfo(np.float64).eps) > bound else 0.0


@njit(**COMPILE)
def _bound(solver, magnitudes, size, step, column):
    """The one threshold of magnitudes whose borders between kernels play no part."""
    if solver == LASSO:
        return step
    if solver == EXCLUSIVE:
        return exclusive_one(magnitudes, size, step)
    return half_one(magnitudes, size, step, column)


def _walk_of(row: tuple[int, float, float], fingerprint: int) -> Callable:
    """The walk over all layers for one row of the table: norm, inner and outer exponent.

    What follows from the row is fixed here and not an argument, so that numba compiles one branch instead of
    all. These values are part of the name under which numba keeps the compiled walk on disk.
    """
    norm, inner, outer = row
    evenly = row == (2, 2.0, 1.0)
    one_norm = norm == 2 and inner == 2  # a sum of squared norms is the square of the group's
    exponents = solved_exponents(norm, inner, outer)
    one_set = _ONE_SET.get(exponents, 0)
    by_kernel = _BY_KERNEL.get(exponents, "")
    degree = inner * outer

    def walk(addresses, layers, blocks, step, l1_step, sample):
        """One proximal step on every block of groups; returns how many groups are not finite, left alone."""
        broken = np.zeros(len(blocks), np.int64)
        for b in prange(len(blocks)):
            layer, conv_group, first, end = blocks[b]
            _, _, kernels, elements, s_conv, s_group, s_kernel, _, span = layers[layer]
            w = carray(pointer(addresses[layer]), (span,), sample.dtype)
            size, each = kernels * elements, 1 if norm == 2 else elements
            a = np.empty(size, sample.dtype)
            sums = np.empty((4, kernels), sample.dtype)
            threshold = np.zeros(kernels, sample.dtype)
            factor = np.ones(kernels, sample.dtype)
            norms, rows = np.empty(kernels), np.empty((8, kernels))
            column = np.empty(size + 1)
            for group in range(first, end):
                start = conv_group * s_conv + group * s_group
                if norm == 2 and not evenly:
                    total = _norms(w, start, kernels, elements, s_kernel, l1_step, norms)
                else:
                    total = _total(w, start, kernels, elements, s_kernel)
                if total == 0:
                    _shrink(w, start, kernels, elements, s_kernel, l1_step, 1.0, threshold, factor)
                    continue
                if not np.isfinite(total):
                    broken[b] += 1
                    continue
                unit = 1.0 if evenly else _unit_of(total)
                t = step if unit == 1 else step * unit ** (degree - 2)
                if evenly:
                    factor[:] = 1 / (1 + 2 * step)
                elif norm == 2:
                    norms /= unit
                    if one_norm:
                        norms[:] = np.sqrt(np.sum(norms * norms))
                    if one_set:
                        threshold[:] = 0
                        bound = _bound(one_set, norms, 1 if one_norm else kernels, t, column)
                        for k in range(kernels):
                            factor[k] = _scale(bound, norms[k])
                else:
                    _gather(w, start, kernels, elements, s_kernel, l1_step, unit, a, not one_set)
                    if one_set:
                        threshold[:] = _bound(one_set, a, size, t, column)
                if by_kernel and norm == 2:
                    a[:kernels] = norms
                if by_kernel == "rooted exclusive":
                    rooted_exclusive(a, kernels, each, t, sums, threshold)
                elif by_kernel == "squared exclusive":
                    squared_exclusive(a, kernels, each, t, sums, threshold)
                elif by_kernel == "rooted half":
                    rooted_half(kernel_group(kernels, each, a, threshold, sums, rows, column), t)
                elif by_kernel == "squared half":
                    squared_half(kernel_group(kernels, each, a, threshold, sums, rows, column), t)
                if by_kernel and norm == 2:
                    for k in range(kernels):
                        factor[k] = _scale(np.float64(threshold[k]), np.float64(a[k]))
                    threshold[:] = 0
                _shrink(w, start, kernels, elements, s_kernel, l1_step, unit, threshold, factor)
        return broken.sum() + 0 * fingerprint

    return walk


def knows(spec: PenaltySpec) -> bool:
    """Whether there is compiled code for a row's proximal step."""
    row = (spec.norm, spec.inner, spec.outer)
    return row == (2, 2, 1) or solved_exponents(*row) in _ONE_SET | _BY_KERNEL


@cache
def _compiled_walk(row: tuple[int, float, float], parallel: bool) -> Callable:
    mark = mark_of(gradient, half_groups, half_thresholds, thresholds)
    return compiled(_walk_of(row, mark + parallel), parallel=parallel, **COMPILE)


def fused_prox_(penalty: Penalty, work: CompiledWork, step: float, l1_step: float = 0.0) -> int:
    """Replace every weight of the work by its prox, in place.

    Returns the number of groups that hold NaN or infinite entries; those are left as they are.

    >>> import torch
    >>> from hgsr_lite.fast.cpu.gradient import compiled_work
    >>> from hgsr_lite.groups import Layout
    >>> weight = torch.tensor([[3., -1., 0.5]])
    >>> fused_prox_(Penalty("es", "neuron"), compiled_work([weight], [Layout()], "neuron"), 0.25)
    0
    >>> weight
    tensor([[2., 0., 0.]])
    """
    spec = PENALTIES["l1"] if step == 0 else penalty.spec  # then only the l1 step is left
    if step == 0:
        step, l1_step = l1_step, 0.0
    if step == 0:
        return 0
    walk = _compiled_walk((spec.norm, spec.inner, spec.outer), work.several_threads(_PARALLEL_FROM))
    return int(walk(work.addresses, work.layers, work.blocks, float(step), float(l1_step), work.sample))
