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


# Measured: a comparison used as a number (0 or 1) lets the compiler take eight magnitudes at a time; the
# same loop with `if` takes one, and is sixteen times slower.


@njit(**COMPILE)
def sum_above(a, size, threshold):
    """Sum and number of the first `size` magnitudes above a threshold."""
    real = a.dtype.type
    bound, total, count = real(threshold), real(0), real(0)
    for i in range(size):
        kept = real(a[i] > bound)
        total += kept * a[i]
        count += kept
    return np.float64(total), np.float64(count)


@njit(**COMPILE)
def sums_above(a, kernels, elements, threshold, sums, counts, squares):
    """For each kernel: sum, number and sum of squares of its magnitudes above its threshold."""
    real = a.dtype.type
    for k in range(kernels):
        sums[k] = real(0)
        counts[k] = real(0)
        squares[k] = real(0)
    for e in range(elements):
        row = a[e * kernels : (e + 1) * kernels]
        for k in range(kernels):
            kept = real(row[k] > threshold[k])
            value = kept * row[k]
            sums[k] += value
            squares[k] += value * value
            counts[k] += kept


@njit(**COMPILE)
def exclusive_one(a, size, step):
    """t A^2 of one set of magnitudes: its threshold. See `thresholds.exclusive_threshold`."""
    total, count = sum_above(a, size, -1.0)
    threshold = total / (0.5 / step + count)
    for _ in range(MOST_ROUNDS):
        total, fewer = sum_above(a, size, threshold)
        if fewer == count or fewer == 0:  # 0: the threshold is the largest magnitude itself, but for rounding
            break
        count = fewer
        threshold = total / (0.5 / step + count)
    return threshold


@njit(**COMPILE)
def rooted_exclusive(a, kernels, elements, step, scratch, threshold):
    """t sqrt(sum_k A_k^2): the threshold of each kernel. See `thresholds.rooted_exclusive_threshold`."""
    sums, counts = scratch[0], scratch[1]
    if _full_sets(a, kernels, elements, scratch, threshold) == 0:
        return
    precision = 4 * np.finfo(a.dtype).eps
    x = 0.0
    for _ in range(MOST_ROUNDS):
        for _ in range(MOST_ROUNDS):
            total, slope = 0.0, 0.0
            for k in range(kernels):
                inverse = 1 / (x + counts[k])
                square = (sums[k] * inverse) ** 2
                total += square
                slope += square * inverse
            change = (np.sqrt(total) / step - 1) * total / slope
            x = max(x + change, 0.0)
            if not change > precision * x:
                break
        for k in range(kernels):
            threshold[k] = sums[k] / (x + counts[k])
        if not _sets_change(a, kernels, elements, x, scratch, threshold):
            break


@njit(**COMPILE)
def squared_exclusive(a, kernels, elements, step, scratch, threshold):
    """t (sum_k A_k^2)^2: the threshold of each kernel. See `thresholds.squared_exclusive_threshold`."""
    sums, counts = scratch[0], scratch[1]
    if _full_sets(a, kernels, elements, scratch, threshold) == 0:
        return
    c = 0.0
    for _ in range(MOST_ROUNDS):
        c = _joint_factor(kernels, step, sums, counts, c)
        for k in range(kernels):
            threshold[k] = c * sums[k] / (1 + c * counts[k])
        if not _sets_change(a, kernels, elements, 1 / c, scratch, threshold):
            break


@njit(**COMPILE)
def _joint_factor(kernels, step, sums, counts, c):
    """Newton's method for c = 4 t P(c) with the sets held fixed."""
    precision = 4 * np.finfo(sums.dtype).eps
    if c == 0:
        largest, total = 0.0, 0.0
        for k in range(kernels):
            total += np.float64(sums[k]) ** 2
            largest += (sums[k] / counts[k]) ** 2
        c = min(4 * step * total, (4 * step * largest) ** (1 / 3))
    for _ in range(MOST_ROUNDS):
        total, slope = 0.0, 0.0
        for k in range(kernels):
            inverse = 1 / (1 + c * counts[k])
            square = (sums[k] * inverse) ** 2
            total += square
            slope += square * counts[k] * inverse
        root = np.sqrt(step / c)
        newton = c - (total**-0.5 - 2 * root) / (total**-1.5 * slope + root / c)
        following = max(newton, c / 8)
        done = not abs(following - c) > precision * c
        c = following
        if done:
            break
    return c


@njit(**COMPILE)
def _full_sets(a, kernels, elements, scratch, threshold):
    """Every magnitude above zero, and their sum; a kernel of zeros counts one, to spare a division by 0."""
    total = 0.0
    threshold[:kernels] = 0
    sums_above(a, kernels, elements, threshold, scratch[0], scratch[1], scratch[2])
    for k in range(kernels):
        total += scratch[0, k]
        scratch[1, k] = max(scratch[1, k], a.dtype.type(1))
        scratch[3, k] = scratch[1, k]
    return total


@njit(**COMPILE)
def _sets_change(a, kernels, elements, x, scratch, threshold):
    """Look again which magnitudes are above the thresholds; whether that differs from last time."""
    sums, counts, before = scratch[0], scratch[1], scratch[3]
    sums_above(a, kernels, elements, threshold, sums, counts, scratch[2])
    changes = 0.0
    for k in range(kernels):
        if counts[k] == 0:
            # The threshold is the largest magnitude itself (x = 0): the set stays as it was.
            counts[k] = before[k]
            sums[k] = threshold[k] * (x + before[k])
        changes += abs(counts[k] - before[k])
        before[k] = counts[k]
    return changes > 0
