"""Blocks of float32 weights so large or small that float32 would lose them: found, and served in float64.

The fast loops square norms and divide by them in float32. That is right while every norm lies between 2^-60
and 2^30; beyond, a square vanishes or overflows, and a gradient of size 1 would come out as 0. Such blocks
are rare: looking for them must cost next to nothing, and serving them need not be fast.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hgsr_lite.fast.cpu.memory import row_of

_LEAST, _MOST = 2.0**-60, 2.0**30
_REORDERED = {"reassoc", "nsz"}


@njit(fastmath=_REORDERED)
def is_extreme(norms, norm, scale, address, start, stride, elements, sample):
    """Whether a block's norms `(rows, columns)`, or the factor of its gradient, need more than float32.

    An l2 norm of 0 may be one whose squares have vanished: only then the weights are looked at again.
    """
    real, every = norms.dtype.type, norms.reshape(-1)
    least, most = real(_LEAST), real(_MOST)
    outside, zeros = real(0), real(0)
    for at in range(every.size):
        outside += real((every[at] > most) | ((every[at] < least) & (every[at] > 0)))
        zeros += real(every[at] == 0)
    if outside > 0 or not (scale == 0 or _LEAST < abs(scale) < _MOST):
        return True
    if norm == 2 and elements > 1 and zeros > 0:
        for row in range(norms.shape[0]):
            weights = row_of(address, start + row * stride, norms.shape[1], elements, sample).reshape(-1)
            for at in range(weights.size):
                outside += real((weights[at] != 0) & (abs(weights[at]) < least))
    return outside > 0


@njit
def serve_extreme(
    weights, gradients, start, stride, shape, groups, by_kernel, norm, inner, outer, scale, l1_scale, sample
):
    """Add one block's gradient, computed in float64; return its part of the term.

    `shape` is (rows, columns, elements); rows go by kernel or by group, as in `gradient`.
    """
    rows, columns, elements = shape
    norms, sums, slopes = np.empty((rows, columns)), np.zeros(groups), np.zeros(groups)
    value, l1 = 0.0, 0.0
    for row in range(rows):
        kernels = row_of(weights, start + row * stride, columns, elements, sample)
        for column in range(columns):
            total = 0.0
            for element in range(elements):
                size = abs(np.float64(kernels[column, element]))
                total += size if norm == 1 else size * size
                l1 += size
            norms[row, column] = total if norm == 1 else np.sqrt(total)
            sums[column if by_kernel else row] += norms[row, column] ** inner
    for group in range(groups):
        if sums[group] != 0:
            value += sums[group] ** outer
            slopes[group] = scale * outer * inner * sums[group] ** (outer - 1)
    for row in range(rows):
        kernels = row_of(weights, start + row * stride, columns, elements, sample)
        target = row_of(gradients, start + row * stride, columns, elements, sample)
        for column in range(columns):
            if norms[row, column] == 0:
                continue
            slope = slopes[column if by_kernel else row] * norms[row, column] ** (inner - norm)
            for element in range(elements):
                w = np.float64(kernels[column, element])
                sign = np.float64(w > 0) - np.float64(w < 0)
                added = slope * (sign if norm == 1 else w) + l1_scale * sign
                target[column, element] += sample.dtype.type(added)
    return scale * value + l1_scale * l1
