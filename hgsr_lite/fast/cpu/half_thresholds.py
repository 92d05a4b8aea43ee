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

import numpy as np
from numba import njit

from hgsr_lite.fast.cpu.thresholds import COMPILE, MOST_ROUNDS, sum_above, sums_above


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
    found = (0.0, 0.0, 0.0, 0.0, -np.inf)
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


@njit(**COMPILE)
def _set_kernel(k, found, force, sums, threshold, roots):
    roots[k] = found[0]
    sums[0, k], sums[1, k], sums[2, k] = found[1], found[2], found[3]
    threshold[k] = 0.5 * force / found[0] if found[0] > 0 else np.inf


@njit(**COMPILE)
def _solve_sorted(a, k, kernels, elements, force, forced, sums, threshold, rows, column):
    """One kernel by trying every m; a kernel found to be zero bears no more than this force."""
    bearable = rows[1]
    found = (0.0, 0.0, 0.0, 0.0, -np.inf)
    if forced or force < bearable[k]:
        for e in range(elements):
            value = np.float64(a[e * kernels + k])
            place = e
            while place > 0 and column[place - 1] < value:
                column[place] = column[place - 1]
                place -= 1
            column[place] = value
        found = _best_of_sorted(column, elements, force)
        if not forced and found[4] <= 0:
            bearable[k] = min(bearable[k], force)
            found = (0.0, 0.0, 0.0, 0.0, -np.inf)
    _set_kernel(k, found, force, sums, threshold, rows[0])


@njit(**COMPILE)
def respond(a, kernels, elements, force, forced, sums, threshold, rows, column):
    """Solve problem (1) for every kernel, from the sets it had: its root is 0 where it is zero.

    Returns the sum of the roots, how fast it falls as the force grows, and the sum of the gains.
    `forced` keeps the kernels marked in the last row of scratch, and only those, if they can live at all.
    """
    roots, living = rows[0], rows[6]
    for _ in range(MOST_ROUNDS):
        for k in range(kernels):
            # The smallest of totals stands for none: then the threshold is beyond every magnitude.
            roots[k] = _largest_root(max(np.float64(sums[0, k]), 1e-300), 0.5 * force * sums[1, k], 4)
            sums[3, k] = sums[1, k]
            threshold[k] = 0.5 * force / roots[k]
        sums_above(a, kernels, elements, threshold, sums[0], sums[1], sums[2])
        changes = 0.0
        for k in range(kernels):
            changes += abs(sums[1, k] - sums[3, k])
        if changes == 0:
            break
    for k in range(kernels):
        if forced and living[k] == 0:
            _set_kernel(k, (0.0, 0.0, 0.0, 0.0, -np.inf), force, sums, threshold, roots)
        elif not _is_global(roots[k], np.float64(sums[0, k]), sums[1, k], elements, force):
            _solve_sorted(a, k, kernels, elements, force, forced, sums, threshold, rows, column)
    total, give, gains = 0.0, 0.0, 0.0
    for k in range(kernels):
        u, count, alive = roots[k], np.float64(sums[1, k]), np.float64(roots[k] > 0)
        # At u > 0 the curvature 3 u^2 - S is above zero but for rounding; at u = 0 the count is zero.
        give += count / (max(6 * u * u - 2 * sums[0, k], 1e-300) + (1 - alive))
        cut = alive * 0.5 * force / (u + (1 - alive))
        gains += 0.5 * (sums[2, k] - count * cut * cut) - force * u
        total += u
    return total, give, gains


@njit(**COMPILE)
def start(a, kernels, elements, sums, threshold, rows):
    """Full sets and bounds of what each kernel bears; returns the sum of sqrt(S_k) and the largest bound."""
    for k in range(kernels):
        rows[2, k] = 0.0
        threshold[k] = 0.0
    for e in range(elements):
        row = a[e * kernels : (e + 1) * kernels]
        for k in range(kernels):
            rows[2, k] = max(rows[2, k], np.float64(row[k]))
    sums_above(a, kernels, elements, threshold, sums[0], sums[1], sums[2])
    total, bound = 0.0, 0.0
    for k in range(kernels):
        total += np.sqrt(np.float64(sums[0, k]))
        rows[1, k] = _bearable_bound(rows[2, k], np.float64(sums[0, k]), elements)
        bound = max(bound, rows[1, k])
        rows[3, k], rows[4, k], rows[5, k] = sums[0, k], sums[1, k], sums[2, k]
    return total, bound


@njit(**COMPILE)
def restart(kernels, sums, rows):
    """Back to the full sets: from there a lower force finds again the kernels a higher one emptied."""
    for k in range(kernels):
        sums[0, k], sums[1, k], sums[2, k] = rows[3, k], rows[4, k], rows[5, k]
