"""The proximal step on every layer in one call, compiled for the CPU: `prox`, group by group.

Each group is copied into scratch memory, where its thresholds are found without sorting (see
`thresholds` and `half_groups`), and is then shrunk in place. The answers are those of
`prox`, to rounding; `prox` is the one to read.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numba import carray, njit, prange

from hgsr_lite.fast.cpu import gradient, half_groups, half_thresholds, thresholds
from hgsr_lite.fast.cpu.gradient import CompiledWork, _pointer, start_threads
from hgsr_lite.fast.cpu.half_groups import rooted_half, squared_half
from hgsr_lite.fast.cpu.half_thresholds import half_one
from hgsr_lite.fast.cpu.thresholds import COMPILE, exclusive_one, rooted_exclusive, squared_exclusive
from hgsr_lite.fast.first_use import explained
from hgsr_lite.penalties import Penalty

_PARALLEL_FROM = 1 << 15  # weights; below this a second thread costs more than it saves


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
    return total


@njit(**COMPILE)
def _gather(w, start, kernels, elements, s_kernel, l1_step, a, by_element):
    """Magnitudes less the l1 step; element by element, or kernel by kernel as they lie in the weight."""
    zero, shift = a.dtype.type(0), a.dtype.type(l1_step)
    for k in range(kernels):
        kernel = w[start + k * s_kernel : start + k * s_kernel + elements]
        if by_element:
            for e in range(elements):
                a[e * kernels + k] = max(abs(kernel[e]) - shift, zero)
        else:
            place = a[k * elements : (k + 1) * elements]
            for e in range(elements):
                place[e] = max(abs(kernel[e]) - shift, zero)


@njit(fastmath={"contract"})
def _shrink(w, start, kernels, elements, s_kernel, l1_step, threshold, factor):
    """Replace w by `sign(w) * factor * max(|w| - l1_step - threshold, 0)`.

    The sign is a number for the reason told in `thresholds`; adding zero turns -0 into 0, which
    is why this function does without `nsz`.
    """
    real = w.dtype.type
    zero, largest = real(0), np.finfo(w.dtype).max
    for k in range(kernels):
        kernel = w[start + k * s_kernel : start + k * s_kernel + elements]
        bound, scale = min(real(threshold[k] + l1_step), largest), factor[k]
        for e in range(elements):
            sign = real(kernel[e] > zero) - real(kernel[e] < zero)
            kernel[e] = sign * (scale * max(abs(kernel[e]) - bound, zero)) + zero


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
def _scale_kernels(bound, norms, kernels, factor):
    """Norm-wise soft threshold, as what each kernel is multiplied by."""
    for k in range(kernels):
        factor[k] = 1 - bound / norms[k] if norms[k] > bound else 0.0


def _walk_of(key: str, fingerprint: int) -> Callable:
    """The walk over all layers for one penalty.

    The key is fixed here and not an argument, so that numba compiles one branch instead of eleven. Both
    values are part of the name under which numba keeps the compiled walk on disk.
    """

    def walk(addresses, layers, blocks, step, l1_step, sample):
        """One proximal step on every block of groups; returns how many groups are not finite, left alone."""
        broken = np.zeros(len(blocks), np.int64)
        for b in prange(len(blocks)):
            layer, conv_group, first, end = blocks[b]
            _, _, kernels, elements, s_conv, s_group, s_kernel, _, span = layers[layer]
            w = carray(_pointer(addresses[layer]), (span,), sample.dtype)
            size = kernels * elements
            a = np.empty(size, sample.dtype)
            sums = np.empty((4, kernels), sample.dtype)
            threshold = np.zeros(kernels, sample.dtype)
            factor = np.ones(kernels, sample.dtype)
            rows = np.empty((8, kernels))
            column = np.empty(size + 1)
            for group in range(first, end):
                start = conv_group * s_conv + group * s_group
                if key in ("gl", "hsqrt_gl", "hsq_gl"):
                    total = _norms(w, start, kernels, elements, s_kernel, l1_step, rows[0])
                else:
                    total = _total(w, start, kernels, elements, s_kernel)
                    if total == 0:
                        continue
                if not np.isfinite(total):
                    broken[b] += 1
                    continue
                if key in ("es", "gl12"):
                    _gather(w, start, kernels, elements, s_kernel, l1_step, a, False)
                elif key in ("hsqrt_es", "hsq_es", "hsqrt_gl12", "hsq_gl12"):
                    _gather(w, start, kernels, elements, s_kernel, l1_step, a, True)
                if key == "gl":
                    factor[:] = max(1 - step / np.sqrt(np.sum(rows[0] ** 2)), 0.0)
                elif key == "hsqrt_gl":
                    _scale_kernels(half_one(rows[0], kernels, step, column), rows[0], kernels, factor)
                elif key == "hsq_gl":
                    _scale_kernels(exclusive_one(rows[0], kernels, step), rows[0], kernels, factor)
                elif key == "es":
                    threshold[:] = exclusive_one(a, size, step)
                elif key == "hsqrt_es":
                    rooted_exclusive(a, kernels, elements, step, sums, threshold)
                elif key == "hsq_es":
                    squared_exclusive(a, kernels, elements, step, sums, threshold)
                elif key == "gl12":
                    threshold[:] = half_one(a, size, step, column)
                elif key == "hsqrt_gl12":
                    rooted_half(a, kernels, elements, step, sums, threshold, rows, column)
                elif key == "hsq_gl12":
                    squared_half(a, kernels, elements, step, sums, threshold, rows, column)
                elif key == "l1":
                    threshold[:] = step
                elif key == "l2":
                    factor[:] = 1 / (1 + 2 * step)
                _shrink(w, start, kernels, elements, s_kernel, l1_step, threshold, factor)
        return broken.sum() + 0 * fingerprint

    return walk


@cache
def _compiled_walk(key: str, parallel: bool) -> Callable:
    if parallel:
        start_threads()
    walk = _walk_of(key, _fingerprint() + parallel)
    return explained(njit(cache=True, parallel=parallel, **COMPILE)(walk))


@cache
def _fingerprint() -> int:
    """Of everything that is compiled into the walk: numba's cache itself looks at this file only."""
    sources = (gradient, half_groups, half_thresholds, thresholds)
    return zlib.crc32(b"".join(Path(source.__file__).read_bytes() for source in sources))


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
    if step == 0:
        penalty, step, l1_step = Penalty("l1", penalty.grouping), l1_step, 0.0
    if step == 0:
        return 0
    walk = _compiled_walk(penalty.key, work.several_threads(_PARALLEL_FROM))
    return int(walk(work.addresses, work.layers, work.blocks, float(step), float(l1_step), work.sample))
