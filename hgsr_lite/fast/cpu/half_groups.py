"""The thresholds of `hsqrt_gl12` and `hsq_gl12`, one group at a time, compiled for the CPU.

The methods are those of `half_thresholds`; here a group whose first answer is proved right is left at
once, and only the others search on. Scratch of a group, one entry a kernel in each row:

- `sums`, of the weights' dtype: S, m and Q of the present sets, and m before;
- `rows`, float64: the roots x_k; bounds of the bearable forces; the largest magnitudes; S, m and Q of
  the full sets; which kernels a candidate keeps alive; the thresholds of the best candidate.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hgsr_lite.fast.cpu.half_thresholds import respond, restart, start
from hgsr_lite.fast.cpu.thresholds import COMPILE, MOST_ROUNDS

_NODES = 64


@njit(**COMPILE)
def rooted_half(a, kernels, elements, step, sums, threshold, rows, column):
    """t sqrt(X): the threshold of each kernel. See `half_thresholds.rooted_half_threshold`.

    From each promising force the iteration f <- t / (2 sqrt(X(f))), sped up by Newton, goes to where it
    rests. The first start is the smallest force possible; in early training it leads to the optimum, and
    one more value proves it.
    """
    total, bound = start(a, kernels, elements, sums, threshold, rows)
    low = 0.5 * step / np.sqrt(total)
    threshold[:kernels] = np.inf
    if not low < bound:
        return
    kept = rows[7]
    precision = np.finfo(a.dtype).eps
    tolerance = max(1e-10, 8 * precision) * 0.5 * np.sum(rows[5, :kernels])
    nodes = np.empty((2, _NODES))
    nodes[0, 0], nodes[1, 0] = bound, 0.0
    count, best, force, last = 1, np.inf, low, low
    while count < _NODES:
        if force < last:
            restart(kernels, sums, rows)
        last = force
        total, give, gains = respond(a, kernels, elements, force, False, sums, threshold, rows, column)
        count = _insert(nodes, count, force, gains)
        value = 0.25 * step * step / force - gains
        following = force
        if value < best:
            best = value
            kept[:kernels] = threshold[:kernels]
            rate = 0.25 * step * total**-1.5 * give if total > 0 else 1.0
            following = 0.5 * step / np.sqrt(total) if total > 0 else force
            force += (following - force) / (1 - rate if rate < 0.5 else 1.0)
        if abs(following - last) <= 64 * precision * last:
            force = _next_force(nodes, count, step, min(best, 0.0) - tolerance)
            if force == 0:
                break
    threshold[:kernels] = np.inf
    if best < 0:
        threshold[:kernels] = kept[:kernels]


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
def squared_half(a, kernels, elements, step, sums, threshold, rows, column):
    """t X^2: the threshold of each kernel. See `half_thresholds.squared_half_threshold`.

    If the force f = 2 t X(f) is met with every kernel at its own optimum, that is the optimum; only a
    group with a kernel at the border tries the other candidates.
    """
    total, _ = start(a, kernels, elements, sums, threshold, rows)
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
        restart(kernels, sums, rows)
        _, force = _joint_force(a, kernels, elements, step, True, sums, threshold, rows, column)
        total, _, gains = respond(a, kernels, elements, force, True, sums, threshold, rows, column)
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
        total, give, _ = respond(a, kernels, elements, force, forced, sums, threshold, rows, column)
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
    restart(kernels, sums, rows)
    total, _, _ = respond(a, kernels, elements, high, False, sums, threshold, rows, column)
    weakest, least = -1, np.inf
    for k in range(kernels):
        living[k] = 1.0 if roots[k] > 0 else 0.0
        if roots[k] > 0:
            bears = 0.5 * (sums[2, k] - sums[1, k] * np.float64(threshold[k]) ** 2) / roots[k]
            if bears < least:
                least, weakest = bears, k
    restart(kernels, sums, rows)
    respond(a, kernels, elements, low, False, sums, threshold, rows, column)
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
