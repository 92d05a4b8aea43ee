"""The thresholds of `half_thresholds`, one group at a time and mostly without sorting, for the CPU.

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

from hgsr_lite.fused_thresholds import COMPILE, MOST_ROUNDS, sum_above, sums_above


@njit(inline="always")
def _largest_root(total, pull):
    """The largest root of u^3 - total u + pull = 0, by Newton's method from above."""
    u = np.sqrt(total)
    for _ in range(6):
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
    largest = 0.0
    for i in range(size):
        largest = max(largest, a[i])
    if _bearable_bound(largest, total, size) <= force:
        return np.inf
    for _ in range(MOST_ROUNDS):
        u = _largest_root(total, 0.5 * force * count)
        if not u > 0:
            break
        total, fewer = sum_above(a, size, 0.5 * force / u)
        if fewer == count:
            if _is_global(u, total, count, size, force):
                return 0.5 * force / u
            break
        count = fewer
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
def _respond(a, kernels, elements, force, forced, sums, threshold, rows, column):
    """Solve problem (1) for every kernel, from the sets it had: its root is 0 where it is zero.

    Returns the sum of the roots, how fast it falls as the force grows, and the sum of the gains.
    `forced` keeps the kernels marked in the last row of scratch, and only those, if they can live at all.
    """
    roots, living = rows[0], rows[6]
    for _ in range(MOST_ROUNDS):
        for k in range(kernels):
            u = _largest_root(np.float64(sums[0, k]), 0.5 * force * sums[1, k])
            roots[k] = u if u > 0 else 0.0
            sums[3, k] = sums[1, k]
            threshold[k] = 0.5 * force / u if u > 0 else np.inf
        sums_above(a, kernels, elements, threshold, sums[0], sums[1], sums[2])
        change = False
        for k in range(kernels):
            change |= sums[1, k] != sums[3, k]
        if not change:
            break
    total, give, gains = 0.0, 0.0, 0.0
    for k in range(kernels):
        if forced and living[k] == 0:
            _set_kernel(k, (0.0, 0.0, 0.0, 0.0, -np.inf), force, sums, threshold, roots)
            continue
        if not _is_global(roots[k], np.float64(sums[0, k]), sums[1, k], elements, force):
            _solve_sorted(a, k, kernels, elements, force, forced, sums, threshold, rows, column)
        u = roots[k]
        if u > 0:
            slope = 6 * u * u - 2 * sums[0, k]
            total += u
            give += sums[1, k] / slope if slope > 0 else 0.0
            gains += 0.5 * (sums[2, k] - sums[1, k] * np.float64(threshold[k]) ** 2) - force * u
    return total, give, gains


@njit(**COMPILE)
def _start(a, kernels, elements, sums, threshold, rows):
    """Full sets and bounds of what each kernel bears; returns the sum of sqrt(S_k) and the largest bound."""
    for k in range(kernels):
        rows[2, k] = 0.0
        threshold[k] = 0.0
    for e in range(elements):
        for k in range(kernels):
            rows[2, k] = max(rows[2, k], a[e * kernels + k])
    sums_above(a, kernels, elements, threshold, sums[0], sums[1], sums[2])
    total, bound = 0.0, 0.0
    for k in range(kernels):
        total += np.sqrt(np.float64(sums[0, k]))
        rows[1, k] = _bearable_bound(rows[2, k], np.float64(sums[0, k]), elements)
        bound = max(bound, rows[1, k])
        rows[3, k], rows[4, k], rows[5, k] = sums[0, k], sums[1, k], sums[2, k]
    return total, bound


@njit(**COMPILE)
def _restart(kernels, sums, rows):
    for k in range(kernels):
        sums[0, k], sums[1, k], sums[2, k] = rows[3, k], rows[4, k], rows[5, k]


@njit(**COMPILE)
def rooted_half(a, kernels, elements, step, sums, threshold, rows, column):
    """t sqrt(X): the threshold of each kernel. See `half_thresholds.rooted_half_threshold`.

    The smallest stationary force is found first; in early training it is the optimum, and one or two
    more values prove it.
    """
    total, bound = _start(a, kernels, elements, sums, threshold, rows)
    low = 0.5 * step / np.sqrt(total)
    if not low < bound:
        threshold[:kernels] = np.inf
        return
    precision = np.finfo(a.dtype).eps
    tolerance = max(1e-10, 8 * precision) * 0.5 * np.sum(rows[5, :kernels])
    nodes = np.empty((2, 64))
    nodes[0, 0], nodes[1, 0] = bound, 0.0
    count, best, force, best_force, last = 1, 0.0, low, np.inf, low
    for _ in range(60):
        if force < last:
            _restart(kernels, sums, rows)
        last = force
        _, _, gains = _respond(a, kernels, elements, force, False, sums, threshold, rows, column)
        count = _insert(nodes, count, force, gains)
        value = 0.25 * step * step / force - gains
        if value < best:
            best, best_force = value, force
        force = _next_force(nodes, count, step, best - tolerance)
        if force == 0:
            break
    if best_force == np.inf:
        threshold[:kernels] = np.inf
        return
    _settle(a, kernels, elements, step, best_force, sums, threshold, rows, column)


@njit(**COMPILE)
def _insert(nodes, count, force, gains):
    """Add a force and its gains, keeping the forces in rising order."""
    place = count
    while place > 0 and nodes[0, place - 1] > force:
        nodes[0, place], nodes[1, place] = nodes[0, place - 1], nodes[1, place - 1]
        place -= 1
    nodes[0, place], nodes[1, place] = force, gains
    return count + 1


@njit(**COMPILE)
def _next_force(nodes, count, step, ceiling):
    """Where the lowest bound below the ceiling lies, 0 if there is none."""
    following = 0.0
    for i in range(count - 1):
        left, right = nodes[0, i], nodes[0, i + 1]
        if not right > left:
            continue
        slope = max((nodes[1, i] - nodes[1, i + 1]) / (right - left), 0.0)
        inside = min(max(0.5 * step / np.sqrt(slope), left), right) if slope > 0 else right
        bound = 0.25 * step * step / inside - nodes[1, i] + slope * (inside - left)
        if bound < ceiling and left < inside < right:
            ceiling, following = bound, inside
    return following


@njit(**COMPILE)
def _settle(a, kernels, elements, step, force, sums, threshold, rows, column):
    """Repeat f <- t / (2 sqrt(X(f))), which lowers the objective each time, to rounding."""
    _restart(kernels, sums, rows)
    for _ in range(MOST_ROUNDS):
        total, give, _ = _respond(a, kernels, elements, force, False, sums, threshold, rows, column)
        if total == 0:
            break
        following = 0.5 * step / np.sqrt(total)
        if not abs(following - force) > 64 * np.finfo(a.dtype).eps * force:
            break
        rate = 0.25 * step * total**-1.5 * give
        force += (following - force) / (1 - rate if rate < 0.5 else 1.0)


@njit(**COMPILE)
def squared_half(a, kernels, elements, step, sums, threshold, rows, column):
    """t X^2: the threshold of each kernel. See `half_thresholds.squared_half_threshold`.

    If the force f = 2 t X(f) is met with every kernel at its own optimum, that is the optimum; only a
    group with a kernel at the border tries the other candidates.
    """
    total, _ = _start(a, kernels, elements, sums, threshold, rows)
    if np.max(rows[2, :kernels]) <= step:
        threshold[:kernels] = np.inf
        return
    rows[6, :kernels] = 1.0
    low, high = _joint_force(a, kernels, elements, step, False, sums, threshold, rows, column)
    if low == high:
        return
    best = _keep_best_single(a, kernels, elements, step, threshold, rows)
    marginal, following, weakest = _border(
        a, kernels, elements, step, low, high, sums, threshold, rows, column
    )
    living = rows[6]
    for candidate in range(4):
        if candidate == 1 and marginal >= 0:
            living[marginal] = 1.0
        elif candidate == 2 and weakest >= 0:
            living[weakest] = 0.0
        elif candidate == 3:
            if weakest >= 0:
                living[weakest] = 1.0
            if following >= 0:
                living[marginal] = 0.0
                living[following] = 1.0
        _restart(kernels, sums, rows)
        _, force = _joint_force(a, kernels, elements, step, True, sums, threshold, rows, column)
        total, _, gains = _respond(a, kernels, elements, force, True, sums, threshold, rows, column)
        lowered = gains + force * total - step * total * total
        if lowered > best:
            best = lowered
            rows[7, :kernels] = threshold[:kernels]
    threshold[:kernels] = rows[7, :kernels]


@njit(**COMPILE)
def _joint_force(a, kernels, elements, step, forced, sums, threshold, rows, column):
    """The force with X(f) = f / (2 t): (f, f), or the narrow bracket in which X(f) jumps over it."""
    precision = np.finfo(a.dtype).eps
    total, below, above = 0.0, -1, -1
    for k in range(kernels):
        total += np.sqrt(rows[3, k]) * rows[6, k]
    low, high = 0.0, 2 * step * total
    force = high
    for _ in range(MOST_ROUNDS):
        total, give, _ = _respond(a, kernels, elements, force, forced, sums, threshold, rows, column)
        excess = total - 0.5 * force / step
        if abs(excess) <= 64 * precision * total:
            return force, force
        alive = 0
        for k in range(kernels):
            alive += rows[0, k] > 0
        if excess > 0:
            low, below = force, alive
        else:
            high, above = force, alive
        narrow = 1e-4 if below > above and not forced else 4 * precision
        if high - low <= narrow * high:
            break
        newton = force + excess / (give + 0.5 / step)
        force = newton if low < newton < high else 0.5 * (low + high)
    return low, high


@njit(**COMPILE)
def _keep_best_single(a, kernels, elements, step, threshold, rows):
    """Keep the thresholds of the best kernel alone, and return its gain."""
    best, where = 0.0, -1
    for k in range(kernels):
        gain = 0.0
        for e in range(elements):
            gain += 0.5 * max(a[e * kernels + k] - step, 0.0) ** 2
        if gain > best:
            best, where = gain, k
        rows[7, k] = np.inf
    if where >= 0:
        rows[7, where] = step
    return best


@njit(**COMPILE)
def _border(a, kernels, elements, step, low, high, sums, threshold, rows, column):
    """Mark the kernels that live at the border; find the first that cannot join them, the next after it,
    and which of the living bears least (-1: there is none)."""
    roots, bearable, living = rows[0], rows[1], rows[6]
    _restart(kernels, sums, rows)
    total, _, _ = _respond(a, kernels, elements, high, False, sums, threshold, rows, column)
    weakest, least = -1, np.inf
    for k in range(kernels):
        living[k] = 1.0 if roots[k] > 0 else 0.0
        if roots[k] > 0:
            bears = 0.5 * (sums[2, k] - sums[1, k] * np.float64(threshold[k]) ** 2) / roots[k]
            if bears < least:
                least, weakest = bears, k
    _restart(kernels, sums, rows)
    _respond(a, kernels, elements, low, False, sums, threshold, rows, column)
    marginal, following = -1, -1
    for k in range(kernels):
        if living[k] == 0 and roots[k] > 0:
            # Of several equal kernels at the border, as many stay as can bear the force together.
            if marginal < 0 and total + roots[k] <= 0.5 * low / step:
                total += roots[k]
                living[k] = 1.0
            elif marginal < 0:
                marginal = k
    for k in range(kernels):
        if living[k] == 0 and k != marginal and (following < 0 or bearable[k] > bearable[following]):
            following = k
    return marginal, following, weakest
