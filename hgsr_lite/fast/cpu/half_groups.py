"""The thresholds of `hsqrt_gl12` and `hsq_gl12`, one group at a time, compiled for the CPU.

The methods are those of `half_thresholds`; here a group whose first answer is proved right is left at
once, and only the others search on.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hgsr_lite.fast.cpu.half_thresholds import respond, restart, start
from hgsr_lite.fast.cpu.thresholds import COMPILE, MOST_ROUNDS

_NODES = 64


@njit(**COMPILE)
def rooted_half(group, step):
    """t sqrt(X): the threshold of each kernel. See `half_thresholds.rooted_half_threshold`.

    From each promising force the iteration f <- t / (2 sqrt(X(f))), sped up by Newton, goes to where it
    rests. The first start is the smallest force possible; in early training it leads to the optimum, and
    one more value proves it.
    """
    total, bound = start(group)
    low = 0.5 * step / np.sqrt(total)
    group.threshold[:] = np.inf
    if not low < bound:
        return
    precision = np.finfo(group.magnitudes.dtype).eps
    tolerance = max(1e-10, 8 * precision) * 0.5 * np.sum(group.full_squares)
    nodes = np.empty((2, _NODES))
    nodes[0, 0], nodes[1, 0] = bound, 0.0
    count, best, force, last = 1, np.inf, low, low
    while count < _NODES:
        if force < last:
            restart(group)
        last = force
        total, give, gains = respond(group, force, False)
        count = _insert(nodes, count, force, gains)
        value = 0.25 * step * step / force - gains
        following = force
        if value < best:
            best = value
            group.kept[:] = group.threshold
            rate = 0.25 * step * total**-1.5 * give if total > 0 else 1.0
            following = 0.5 * step / np.sqrt(total) if total > 0 else force
            force += (following - force) / (1 - rate if rate < 0.5 else 1.0)
        if abs(following - last) <= 64 * precision * last:
            force = _next_force(nodes, count, step, min(best, 0.0) - tolerance)
            if force == 0:
                break
    group.threshold[:] = np.inf
    if best < 0:
        group.threshold[:] = group.kept


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
def squared_half(group, step):
    """t X^2: the threshold of each kernel. See `half_thresholds.squared_half_threshold`.

    If the force f = 2 t X(f) is met with every kernel at its own optimum, that is the optimum; only a
    group with a kernel at the border tries the other candidates.
    """
    total, _ = start(group)
    if np.max(group.largest) <= step:
        group.threshold[:] = np.inf
        return
    group.living[:] = 1.0
    low, high = _joint_force(group, step, False)
    if low == high:
        return
    best = _keep_best_single(group, step)
    marginal, following, weakest = _border(group, step, low, high)
    living = group.living
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
        restart(group)
        _, force = _joint_force(group, step, True)
        total, _, gains = respond(group, force, True)
        lowered = gains + force * total - step * total * total
        if lowered > best:
            best = lowered
            group.kept[:] = group.threshold
    group.threshold[:] = group.kept


@njit(**COMPILE)
def _joint_force(group, step, forced):
    """The force with X(f) = f / (2 t): (f, f), or the narrow bracket in which X(f) jumps over it."""
    precision = np.finfo(group.magnitudes.dtype).eps
    total, below, above = 0.0, -1, -1
    for k in range(group.kernels):
        total += np.sqrt(group.full_total[k]) * group.living[k]
    low, high = 0.0, 2 * step * total
    force = high
    for _ in range(MOST_ROUNDS):
        total, give, _ = respond(group, force, forced)
        excess = total - 0.5 * force / step
        if abs(excess) <= 64 * precision * total:
            return force, force
        alive = 0
        for k in range(group.kernels):
            alive += group.roots[k] > 0
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
def _keep_best_single(group, step):
    """Keep the thresholds of the best kernel alone, and return its gain."""
    best, where = 0.0, -1
    for k in range(group.kernels):
        gain = 0.0
        for e in range(group.elements):
            gain += 0.5 * max(group.magnitudes[e * group.kernels + k] - step, 0.0) ** 2
        if gain > best:
            best, where = gain, k
        group.kept[k] = np.inf
    if where >= 0:
        group.kept[where] = step
    return best


@njit(**COMPILE)
def _border(group, step, low, high):
    """Mark the kernels that live at the border; find the first that cannot join them, the next after it,
    and which of the living bears least (-1: there is none)."""
    roots, bearable, living = group.roots, group.bearable, group.living
    restart(group)
    total, _, _ = respond(group, high, False)
    weakest, least = -1, np.inf
    for k in range(group.kernels):
        living[k] = 1.0 if roots[k] > 0 else 0.0
        if roots[k] > 0:
            bears = 0.5 * (group.squares[k] - group.count[k] * np.float64(group.threshold[k]) ** 2) / roots[k]
            if bears < least:
                least, weakest = bears, k
    restart(group)
    respond(group, low, False)
    marginal, following = -1, -1
    for k in range(group.kernels):
        if living[k] == 0 and roots[k] > 0:
            # Of several equal kernels at the border, as many stay as can bear the force together.
            if marginal < 0 and total + roots[k] <= 0.5 * low / step:
                total += roots[k]
                living[k] = 1.0
            elif marginal < 0:
                marginal = k
    for k in range(group.kernels):
        if living[k] == 0 and k != marginal and (following < 0 or bearable[k] > bearable[following]):
            following = k
    return marginal, following, weakest
