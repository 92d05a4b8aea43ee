"""How kernels answer a force, compiled: problem (1) of `half_thresholds`, mostly without sorting.

For each kernel the work is problem (1) there: minimise 0.5 |v - a|^2 + f sqrt(sum v). A stationary
point (s = sum v, m elements above zero) is found by solving the cubic for the present set and looking
again. It is known to be the global minimum, without trying others, if

    s^(3/2) >= max(m f, n f / 4)             n: elements in the kernel                      (2)

Proof. Let D(s) be half the squared distance from a to the nearest v of sum s; D' is minus the
threshold. From s on, threshold * sqrt(s) falls while n * threshold <= 2 s, which the second part of (2)
says; so no larger point is stationary, and the objective h rises from s on. Below s, D' grows at a
rate of at least 1 / m, so for x = sqrt(s' / s) < 1

    h(s') - h(s) >= (1 - x)^2 / 2 * (s^2 (1 + x)^2 / m - f sqrt(s)) >= 0

by the first part. A kernel that fails (2) is zero if its bearable force is at most f; else its elements
are sorted and every m is tried.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from hgsr_lite.fast.cpu.thresholds import COMPILE, MOST_ROUNDS, sum_above, sums_above

_NOTHING = (0.0, 0.0, 0.0, 0.0, -np.inf)
"""Root, sum, count, squares and gain of a kernel that is zero."""


@njit(inline="always")
def _largest_root(total, pull, rounds):
    """The largest root of u^3 - total u + pull = 0, by Newton's method from above."""
    u = np.sqrt(total)
    for _ in range(rounds):
        u -= (u * (u * u - total) + pull) / (3 * u * u - total)
    return u


@njit(inline="always")
def _is_global(u, total, count, size, force):
    """Whether u is the root, and (2) holds; false for NaN."""
    near = abs(u * (u * u - total) + 0.5 * force * count) <= 1e-9 * total * u
    return near and u * u * u >= force * max(count, 0.25 * size)


@njit(**COMPILE)
def _best_of_sorted(column, size, force):
    """Try every m: (root, sum, count, squares, gain) of the best stationary point; root 0 if none."""
    total, squares, gain = 0.0, 0.0, -np.inf
    found = _NOTHING
    for m in range(1, size + 1):
        value = column[m - 1]
        if value <= 0:
            break
        total += value
        squares += value * value
        pull = 0.5 * force * m
        if pull > 2 * (total / 3) ** 1.5:
            continue
        u = np.sqrt(total)
        for _ in range(60):
            change = (u * (u * u - total) + pull) / (3 * u * u - total)
            if not change > 1e-15 * u:
                break
            u -= change
        threshold = 0.5 * force / u
        smaller = column[m] if m < size else 0.0
        if threshold > value * (1 + 1e-12) or threshold < smaller * (1 - 1e-12):
            continue
        gain = 0.5 * (squares - m * threshold * threshold) - force * u
        if gain > found[4]:
            found = (u, total, float(m), squares, gain)
    return found


@njit(**COMPILE)
def _bearable_bound(largest, total, size):
    """At least the bearable force: gain <= largest * s - s^2 / (2 size) for every s <= total."""
    s = min(total, 2 * size * largest / 3)
    return np.sqrt(s) * (largest - s / (2 * size))


@njit(**COMPILE)
def half_one(a, size, force, column):
    """f sqrt(A) of one set of magnitudes: its threshold, infinity for all zero."""
    total, count = sum_above(a, size, 0.0)
    whole = total
    for _ in range(MOST_ROUNDS):
        u = _largest_root(total, 0.5 * force * count, 8)
        if not u > 0:
            break
        total, fewer = sum_above(a, size, 0.5 * force / u)
        if fewer == count:
            if _is_global(u, total, count, size, force):
                return 0.5 * force / u
            break
        count = fewer
    if _bearable_bound(np.max(a[:size]), whole, size) <= force:
        return np.inf
    for i in range(size):
        column[i] = -a[i]
    column[:size].sort()
    for i in range(size):
        column[i] = -column[i]
    u, _, _, _, gain = _best_of_sorted(column, size, force)
    return 0.5 * force / u if gain > 0 else np.inf


class KernelGroup(NamedTuple):
    """One group's magnitudes and what is known of each of its kernels: arrays of one entry a kernel.

    The magnitudes lie element by element. `threshold` and the sums of what is above it (the `total`, the
    `count`, the `squares`, the count before) are of the weights' dtype, the rest is float64.
    """

    kernels: int
    elements: int
    magnitudes: np.ndarray
    threshold: np.ndarray
    total: np.ndarray
    count: np.ndarray
    squares: np.ndarray
    count_before: np.ndarray
    roots: np.ndarray
    bearable: np.ndarray  # at least the force that the kernel bears
    largest: np.ndarray
    full_total: np.ndarray  # the sums where nothing is below the threshold
    full_count: np.ndarray
    full_squares: np.ndarray
    living: np.ndarray  # 1 for a kernel that a candidate keeps
    kept: np.ndarray  # the thresholds of the best candidate
    column: np.ndarray  # room for one kernel's elements, sorted


@njit(inline="always")
def kernel_group(kernels, elements, magnitudes, threshold, sums, rows, column):
    """A group in scratch memory: four rows of `sums`, eight `rows`."""
    return KernelGroup(
        kernels, elements, magnitudes, threshold, sums[0], sums[1], sums[2], sums[3], rows[0], rows[1],
        rows[2], rows[3], rows[4], rows[5], rows[6], rows[7], column,
    )  # fmt: skip


@njit(inline="always")
def _find_sums(group):
    sums_above(
        group.magnitudes, group.kernels, group.elements, group.threshold,
        group.total, group.count, group.squares,
    )  # fmt: skip


@njit(**COMPILE)
def _set_kernel(group, k, found, force):
    group.roots[k] = found[0]
    group.total[k], group.count[k], group.squares[k] = found[1], found[2], found[3]
    group.threshold[k] = 0.5 * force / found[0] if found[0] > 0 else np.inf


@njit(**COMPILE)
def _solve_sorted(group, k, force, forced):
    """One kernel by trying every m; a kernel found to be zero bears no more than this force."""
    bearable, column, elements = group.bearable, group.column, group.elements
    found = _NOTHING
    if forced or force < bearable[k]:
        for e in range(group.elements):
            value = np.float64(group.magnitudes[e * group.kernels + k])
            place = e
            while place > 0 and column[place - 1] < value:
                column[place] = column[place - 1]
                place -= 1
            column[place] = value
        found = _best_of_sorted(column, elements, force)
        if not forced and found[4] <= 0:
            bearable[k] = min(bearable[k], force)
            found = _NOTHING
    _set_kernel(group, k, found, force)


@njit(**COMPILE)
def respond(group, force, forced):
    """Solve problem (1) for every kernel, from the sets it had: its root is 0 where it is zero.

    Returns the sum of the roots, how fast it falls as the force grows, and the sum of the gains.
    `forced` keeps the kernels marked as `living`, and only those, if they can live at all.
    """
    roots, living = group.roots, group.living
    for _ in range(MOST_ROUNDS):
        for k in range(group.kernels):
            # The smallest of totals stands for none: then the threshold is beyond every magnitude.
            roots[k] = _largest_root(max(np.float64(group.total[k]), 1e-300), 0.5 * force * group.count[k], 4)
            group.count_before[k] = group.count[k]
            group.threshold[k] = 0.5 * force / roots[k]
        _find_sums(group)
        changes = 0.0
        for k in range(group.kernels):
            changes += abs(group.count[k] - group.count_before[k])
        if changes == 0:
            break
    for k in range(group.kernels):
        if forced and living[k] == 0:
            _set_kernel(group, k, _NOTHING, force)
        elif not _is_global(roots[k], np.float64(group.total[k]), group.count[k], group.elements, force):
            _solve_sorted(group, k, force, forced)
    total, give, gains = 0.0, 0.0, 0.0
    for k in range(group.kernels):
        u, count, alive = roots[k], np.float64(group.count[k]), np.float64(roots[k] > 0)
        # At u > 0 the curvature 3 u^2 - S is above zero but for rounding; at u = 0 the count is zero.
        give += count / (max(6 * u * u - 2 * group.total[k], 1e-300) + (1 - alive))
        cut = alive * 0.5 * force / (u + (1 - alive))
        gains += 0.5 * (group.squares[k] - count * cut * cut) - force * u
        total += u
    return total, give, gains


@njit(**COMPILE)
def start(group):
    """Full sets and bounds of what each kernel bears; returns the sum of sqrt(S_k) and the largest bound."""
    for k in range(group.kernels):
        group.largest[k] = 0.0
        group.threshold[k] = 0.0
    for e in range(group.elements):
        row = group.magnitudes[e * group.kernels : (e + 1) * group.kernels]
        for k in range(group.kernels):
            group.largest[k] = max(group.largest[k], np.float64(row[k]))
    _find_sums(group)
    total, bound = 0.0, 0.0
    for k in range(group.kernels):
        total += np.sqrt(np.float64(group.total[k]))
        group.bearable[k] = _bearable_bound(group.largest[k], np.float64(group.total[k]), group.elements)
        bound = max(bound, group.bearable[k])
        group.full_total[k], group.full_count[k], group.full_squares[k] = (
            group.total[k],
            group.count[k],
            group.squares[k],
        )
    return total, bound


@njit(**COMPILE)
def restart(group):
    """Back to the full sets: from there a lower force finds again the kernels a higher one emptied."""
    for k in range(group.kernels):
        group.total[k], group.count[k], group.squares[k] = (
            group.full_total[k],
            group.full_count[k],
            group.full_squares[k],
        )
