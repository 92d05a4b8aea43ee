"""The thresholds of `thresholds`, one group at a time and without sorting, compiled for the CPU.

A group lies in a flat scratch array `a` with element e of kernel k at `e * kernels + k`, so that the
inner loops run over kernels side by side. Where `thresholds` sorts, these solvers keep the set of
magnitudes above the current threshold, solve for that set, and look again. The set settles after a few
rounds, and then the answer is the same: in each of the equations the value for a set is at most the
true value, so the solutions rise from round to round and cannot pass the root.
"""

from __future__ import annotations

import numpy as np
from numba import njit

COMPILE = {"error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp", "nsz"}}
"""No `nnan` and no `ninf`: infinite thresholds mean empty kernels, and NaN must be found."""

MOST_ROUNDS = 100


@njit(**COMPILE)
def sum_above(a, size, threshold):
    """Sum and number of the first `size` magnitudes above a threshold."""
    zero, one = a.dtype.type(0), a.dtype.type(1)
    bound = a.dtype.type(threshold)
    total, count = zero, zero
    for i in range(size):
        total += a[i] if a[i] > bound else zero
        count += one if a[i] > bound else zero
    return np.float64(total), np.float64(count)


@njit(**COMPILE)
def sums_above(a, kernels, elements, threshold, sums, counts, squares):
    """For each kernel: sum, number and sum of squares of its magnitudes above its threshold."""
    zero, one = a.dtype.type(0), a.dtype.type(1)
    for k in range(kernels):
        sums[k] = zero
        counts[k] = zero
        squares[k] = zero
    for e in range(elements):
        row = a[e * kernels : (e + 1) * kernels]
        for k in range(kernels):
            kept = row[k] if row[k] > threshold[k] else zero
            sums[k] += kept
            squares[k] += kept * kept
            counts[k] += one if row[k] > threshold[k] else zero


@njit(**COMPILE)
def exclusive_one(a, size, step):
    """t A^2 of one set of magnitudes: its threshold. See `thresholds.exclusive_threshold`."""
    total, count = sum_above(a, size, -1.0)
    threshold = total / (0.5 / step + count)
    for _ in range(MOST_ROUNDS):
        total, fewer = sum_above(a, size, threshold)
        if fewer == count:
            break
        count = fewer
        threshold = total / (0.5 / step + count)
    return threshold


@njit(**COMPILE)
def rooted_exclusive(a, kernels, elements, step, scratch, threshold):
    """t sqrt(sum_k A_k^2): the threshold of each kernel. See `thresholds.rooted_exclusive_threshold`."""
    sums, counts, squares, before = scratch[0], scratch[1], scratch[2], scratch[3]
    threshold[:kernels] = 0
    sums_above(a, kernels, elements, threshold, sums, counts, squares)
    x = 0.0
    for _ in range(MOST_ROUNDS):
        for _ in range(60):
            total, slope = 0.0, 0.0
            for k in range(kernels):
                square = (sums[k] / (x + counts[k])) ** 2 if counts[k] > 0 else 0.0
                total += square
                slope += square / (x + counts[k]) if counts[k] > 0 else 0.0
            change = (np.sqrt(total) / step - 1) * total / slope if slope > 0 else 0.0
            x = max(x + change, 0.0)
            if not change > 1e-14 * x:
                break
        for k in range(kernels):
            before[k] = counts[k]
            threshold[k] = sums[k] / (x + counts[k]) if counts[k] > 0 else np.inf
        if not _sets_change(a, kernels, elements, x, sums, counts, squares, before, threshold):
            break


@njit(**COMPILE)
def squared_exclusive(a, kernels, elements, step, scratch, threshold):
    """t (sum_k A_k^2)^2: the threshold of each kernel. See `thresholds.squared_exclusive_threshold`."""
    sums, counts, squares, before = scratch[0], scratch[1], scratch[2], scratch[3]
    threshold[:kernels] = 0
    sums_above(a, kernels, elements, threshold, sums, counts, squares)
    c = 0.0
    for _ in range(MOST_ROUNDS):
        c = _joint_factor(kernels, step, sums, counts, c)
        for k in range(kernels):
            before[k] = counts[k]
            threshold[k] = c * sums[k] / (1 + c * counts[k]) if counts[k] > 0 else np.inf
        if not _sets_change(a, kernels, elements, 1 / c, sums, counts, squares, before, threshold):
            break


@njit(**COMPILE)
def _joint_factor(kernels, step, sums, counts, c):
    """Newton's method for c = 4 t P(c) with the sets held fixed."""
    if c == 0:
        largest, total = 0.0, 0.0
        for k in range(kernels):
            total += np.float64(sums[k]) ** 2
            largest += (sums[k] / counts[k]) ** 2 if counts[k] > 0 else 0.0
        c = min(4 * step * total, (4 * step * largest) ** (1 / 3))
    for _ in range(60):
        total, slope = 0.0, 0.0
        for k in range(kernels):
            square = (sums[k] / (1 + c * counts[k])) ** 2
            total += square
            slope += square * counts[k] / (1 + c * counts[k])
        root = np.sqrt(step / c)
        newton = c - (total**-0.5 - 2 * root) / (total**-1.5 * slope + root / c)
        following = max(newton, c / 8)
        done = not abs(following - c) > 1e-14 * c
        c = following
        if done:
            break
    return c


@njit(**COMPILE)
def _sets_change(a, kernels, elements, x, sums, counts, squares, before, threshold):
    sums_above(a, kernels, elements, threshold, sums, counts, squares)
    change = False
    for k in range(kernels):
        if counts[k] == 0 and before[k] > 0:
            # The threshold is the largest magnitude itself (x = 0): the set stays as it was.
            counts[k] = before[k]
            sums[k] = threshold[k] * (x + before[k])
        change |= counts[k] != before[k]
    return change
