"""The proximal step on every layer in one call, compiled for the CPU: `prox`, group by group.

Each group is copied into scratch memory, where its thresholds are found without sorting (see
`fused_thresholds` and `fused_half_thresholds`), and is then shrunk in place. The answers are those of
`prox`, to rounding; `prox` is the one to read.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numba import carray, njit, prange
from torch import Tensor

from hgsr_lite import fused, fused_half_thresholds, fused_thresholds
from hgsr_lite.fused import DTYPES, _pointer
from hgsr_lite.fused_half_thresholds import half_one, rooted_half, squared_half
from hgsr_lite.fused_thresholds import COMPILE, exclusive_one, rooted_exclusive, squared_exclusive
from hgsr_lite.penalties import Penalty

_PARALLEL_FROM = 1 << 15  # weights; below this a second thread costs more than it saves


@njit
def _gather(w, start, kernels, elements, s_kernel, s_element, l1_step, a):
    """Magnitudes less the l1 step, element by element and kernel within element; their plain sum."""
    total = 0.0
    zero = a.dtype.type(0)
    shift = a.dtype.type(l1_step)
    for k in range(kernels):
        for e in range(elements):
            size = abs(w[start + k * s_kernel + e * s_element])
            total += size
            a[e * kernels + k] = size - shift if size > shift else zero
    return total


@njit
def _write(w, start, kernels, elements, s_kernel, s_element, a, threshold, factor):
    """Put back `factor * max(a - threshold, 0)` with the old signs; a plain 0 where nothing is left."""
    zero = a.dtype.type(0)
    for k in range(kernels):
        bound, scale = threshold[k], factor[k]
        for e in range(elements):
            here = start + k * s_kernel + e * s_element
            left = a[e * kernels + k] - bound
            left = scale * left if left > zero else zero
            w[here] = left if w[here] > zero or left == zero else -left


@njit(**COMPILE)
def _kernel_norms(a, kernels, elements, norms):
    """The l2 norm of each kernel, its square summed in float64: no float32 square may vanish."""
    for k in range(kernels):
        norms[k] = 0.0
    for e in range(elements):
        for k in range(kernels):
            value = np.float64(a[e * kernels + k])
            norms[k] += value * value
    for k in range(kernels):
        norms[k] = np.sqrt(norms[k])


@njit(**COMPILE)
def _group_norm(a, size):
    total = 0.0
    for i in range(size):
        total += np.float64(a[i]) * np.float64(a[i])
    return np.sqrt(total)


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
            _, _, kernels, elements, s_conv, s_group, s_kernel, s_element, span = layers[layer]
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
                total = _gather(w, start, kernels, elements, s_kernel, s_element, l1_step, a)
                if not np.isfinite(total):
                    broken[b] += 1
                    continue
                if total == 0:
                    continue
                if key == "gl":
                    factor[:] = max(1 - step / _group_norm(a, size), 0.0)
                elif key == "hsqrt_gl":
                    _kernel_norms(a, kernels, elements, rows[0])
                    _scale_kernels(half_one(rows[0], kernels, step, column), rows[0], kernels, factor)
                elif key == "hsq_gl":
                    _kernel_norms(a, kernels, elements, rows[0])
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
                _write(w, start, kernels, elements, s_kernel, s_element, a, threshold, factor)
        return broken.sum() + 0 * fingerprint

    return walk


@cache
def _compiled_walk(key: str, parallel: bool) -> Callable:
    return njit(cache=True, parallel=parallel, **COMPILE)(_walk_of(key, _fingerprint() + parallel))


@cache
def _fingerprint() -> int:
    """Of everything that is compiled into the walk: numba's cache itself looks at this file only."""
    sources = (fused, fused_half_thresholds, fused_thresholds)
    return zlib.crc32(b"".join(Path(source.__file__).read_bytes() for source in sources))


def fused_prox_(
    penalty: Penalty,
    weights: list[Tensor],
    layers: np.ndarray,
    blocks: np.ndarray,
    step: float,
    l1_step: float = 0.0,
) -> int:
    """Replace every weight by its prox, in place.

    `layers` is `fused.fused_layers` of the weights and `blocks` its `block_rows`. Returns the number of groups that
    hold NaN or infinite entries; those are left as they are.

    >>> import torch
    >>> from hgsr_lite.fused import block_rows, fused_layers
    >>> from hgsr_lite.groups import Layout
    >>> weight = torch.tensor([[3., -1., 0.5]])
    >>> rows = fused_layers([weight], [Layout()], "neuron")
    >>> fused_prox_(Penalty("es", "neuron"), [weight], rows, block_rows(rows), 0.25)
    0
    >>> weight
    tensor([[2., 0., 0.]])
    """
    if step == 0:
        penalty, step, l1_step = Penalty("l1", penalty.grouping), l1_step, 0.0
    if step == 0:
        return 0
    addresses = np.array([weight.data_ptr() for weight in weights], dtype=np.int64)
    sample = np.zeros(1, DTYPES[weights[0].dtype])
    walk = _compiled_walk(penalty.key, sum(weight.numel() for weight in weights) >= _PARALLEL_FROM)
    return int(walk(addresses, layers, blocks, float(step), float(l1_step), sample))
