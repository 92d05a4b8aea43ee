"""Thresholds for the penalties with a square root: local minima, so values must be compared.

Arrangement and notation are those of `thresholds`. With x_k = sqrt(A_k) the sum inside these
penalties is X = sum_k x_k. If every kernel paid a fixed *force* f per unit of x_k, kernel k on its own
would solve the scalar problem behind `gl12`,

    minimise 0.5 |v - a_k|^2 + f sqrt(sum v)                                             (1)

A stationary point with m elements above zero has threshold f / (2 u), u = sqrt(sum v), where u is a
root of u^3 - S_m u + m f / 2 = 0. Only the largest root is a minimum (there 3 u^2 >= S_m, which is the
sign of the second derivative), so (1) has at most one candidate for each m, beside v = 0, and the best
of them is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hgsr_lite.solvers.thresholds import SortedKernels


class HalfSolution(NamedTuple):
    """The best non-zero stationary point of (1) for each kernel, each (groups, kernels, 1).

    `root` is u, 0 where there is none; `gain` is how much lower than at v = 0 the objective (1) is
    (minus infinity where there is none); `give` is -du/df, how fast the root yields to the force.
    """

    root: Tensor
    threshold: Tensor
    gain: Tensor
    give: Tensor


def solve_half(kernels: SortedKernels, force: Tensor) -> HalfSolution:
    """The best non-zero stationary point of problem (1), by trying each number m of elements.

    The largest root in closed form, with p = S_m: u = 2 sqrt(p / 3) cos(arccos(y) / 3),
    y = -(3 sqrt(3) / 4) m f / p^(3/2), and there is none if y < -1.
    """
    sums, counts, values = kernels.sums, kernels.counts, kernels.values
    cosine = -0.75 * 3**0.5 * counts * force / sums.pow(1.5)
    roots = 2 * (sums / 3).sqrt() * torch.cos(torch.arccos(cosine.clamp(-1, 0)) / 3)
    thresholds = force / (2 * roots)
    gains = 0.5 * (kernels.squares - counts * thresholds.square()) - force * roots
    # An m counts only if just its m elements pass its threshold; the slack keeps a tie from losing both.
    slack = 8 * torch.finfo(values.dtype).eps
    smaller = torch.nn.functional.pad(values[..., 1:], (0, 1))
    valid = (cosine >= -1) & (values * (1 + slack) >= thresholds) & (smaller <= thresholds * (1 + slack))
    gain, best = torch.where(valid, gains, -torch.inf).max(-1, keepdim=True)
    exists = gain > -torch.inf
    root = torch.where(exists, roots.gather(-1, best), 0.0)
    curvature = 6 * root.square() - 2 * sums.gather(-1, best)
    give = torch.where(exists & (curvature > 0), counts[best] / curvature, 0.0)
    return HalfSolution(root, torch.where(exists, thresholds.gather(-1, best), values[..., :1]), gain, give)


def half_threshold(kernels: SortedKernels, step: Tensor) -> Tensor:
    """t * sqrt(A), group l1/2: problem (1) with f = t, against v = 0."""
    solution = solve_half(kernels, step)
    return torch.where(solution.gain > 0, solution.threshold, kernels.values[..., :1])


def bearable_force(kernels: SortedKernels) -> Tensor:
    """The largest force under which a kernel is worth keeping, (groups, kernels, 1).

    That is the maximum over v of (0.5 |a|^2 - 0.5 |v - a|^2) / sqrt(sum v). With m elements above zero
    and Q_m their squares' sum, it is reached at the smaller root of 3 m y^2 - 4 S_m y + Q_m = 0.
    """
    sums, squares, counts, values = kernels.sums, kernels.squares, kernels.counts, kernels.values
    spread = 4 * sums.square() - 3 * counts * squares
    thresholds = squares / (2 * sums + spread.clamp(min=0).sqrt())
    slack = 8 * torch.finfo(values.dtype).eps
    smaller = torch.nn.functional.pad(values[..., 1:], (0, 1))
    valid = (spread >= 0) & (values * (1 + slack) >= thresholds) & (smaller <= thresholds * (1 + slack))
    forces = 2 * (sums - counts * thresholds).clamp(min=0).sqrt() * thresholds
    return torch.where(valid, forces, 0.0).amax(-1, keepdim=True)


def rooted_half_threshold(kernels: SortedKernels, step: Tensor) -> Tensor:
    """t * sqrt(X), hierarchical square-rooted group l1/2: the global minimum, found in one scalar.

    Since t sqrt(X) = min over f > 0 of f X + t^2 / (4 f), the whole prox is

        minimise over f:  t^2 / (4 f) - sum_k G_k(f),

    with G_k(f) the gain of kernel k in problem (1), or 0. Each G_k is convex in f. So between two
    values of f the objective lies above its convex piece t^2 / (4 f) plus a chord, whose minimum is
    known: a bound from below. The interval with the lowest bound is split where that minimum lies.

    Start: f = t / (2 sqrt(sum_k sqrt(S_k))), where no kernel has shrunk, and the largest bearable force,
    beyond which everything is zero. Stop: the bound is within 1e-10 (float32: 1e-6) of 0.5 |a|^2 of the
    best point. Then the iteration f <- t / (2 sqrt(X(f))), each step of which lowers the objective,
    carries the best f to rounding. Distance from the optimum: none of 4,000 random problems of 2 to 4
    weights (float64; ties, zeros and equal kernels included) was above brute force by more than 1e-8
    of |a|^2.
    """
    low = step / (2 * kernels.sums[..., -1:].sqrt().sum(1, keepdim=True).sqrt())
    high = bearable_force(kernels).amax(1, keepdim=True)
    threshold = kernels.values[..., :1].clone()
    some = (low < high).flatten()
    if some.any():
        alive = kernels.of_groups(some)
        force = _search_force(alive, step[some], low[some], high[some])
        for _ in range(100):
            solution = solve_half(alive, force)
            root = torch.where(solution.gain > 0, solution.root, 0.0)
            total = root.sum(1, keepdim=True)
            following = torch.where(total > 0, step[some] / (2 * total.sqrt()), force)
            if not ((following - force).abs() > 4 * torch.finfo(force.dtype).eps * force).any():
                break
            force = following
        lowered = (solution.gain.clamp(min=0) + force * root).sum(1, keepdim=True)
        kept = (solution.gain > 0) & (lowered > step[some] * total.sqrt())
        threshold[some] = torch.where(kept, solution.threshold, threshold[some])
    return threshold


def _search_force(kernels: SortedKernels, step: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The force with the lowest t^2 / (4 f) - sum_k G_k(f), (groups, 1, 1), by branch and bound."""
    step = step[..., 0]
    forces = torch.cat([low, high], -1).squeeze(1)
    gains = torch.cat([_total_gain(kernels, low), torch.zeros_like(low[..., 0])], -1)
    tolerance = max(1e-10, 8 * torch.finfo(step.dtype).eps) * 0.5 * kernels.squares[..., -1].sum(1)
    for _ in range(60):
        values = step.square() / (4 * forces) - gains
        left, right, gain = forces[:, :-1], forces[:, 1:], gains[:, :-1]
        slope = ((gain - gains[:, 1:]) / (right - left)).clamp(min=0)
        inside = torch.minimum(torch.maximum(step / (2 * slope.sqrt()), left), right)
        bounds = step.square() / (4 * inside) - gain + slope * (inside - left)
        bounds = torch.where(right > left, bounds, torch.inf)
        lowest, where = bounds.min(-1, keepdim=True)
        best = values.min(-1, keepdim=True)
        ceiling = best.values.squeeze(-1).clamp(max=0) - tolerance
        wanting = (lowest.squeeze(-1) < ceiling).nonzero().squeeze(-1)
        if not len(wanting):
            break
        split, gained = forces[:, :1].clone(), gains[:, :1].clone()
        split[wanting] = inside.gather(-1, where)[wanting]
        gained[wanting] = _total_gain(kernels.of_groups(wanting), split[wanting].unsqueeze(-1))
        forces, order = torch.cat([forces, split], -1).sort(-1)
        gains = torch.cat([gains, gained], -1).gather(-1, order)
    return forces.gather(-1, best.indices).unsqueeze(-1)


def _total_gain(kernels: SortedKernels, force: Tensor) -> Tensor:
    return solve_half(kernels, force).gain.clamp(min=0).sum(1)


def squared_half_threshold(kernels: SortedKernels, step: Tensor) -> Tensor:
    """t * X^2, hierarchical squared group l1/2: the best of six candidates.

    For a given set of living kernels, each solves problem (1) with the common force f = 2 t X. The
    living X(f) falls and f / (2 t) rises, so f is unique. What is hard is the choice of the set.

    t X^2 = max over f of f X - f^2 / (4 t), so for any f a lower bound of the objective is a sum of
    problems (1), and the best bound keeps exactly the kernels whose bearable force is above f. If X(f)
    meets f / (2 t) there, that set is the optimum. If not, one kernel stands at the border: with it the
    force is more than it can bear, without it less.

    Candidates: with the kernels in falling order of bearable force, the first n that bear their joint
    force; the first n + 1; the first n + 1 and n + 2 without the last but one; one kernel alone, which
    pays t A and so has threshold t; and zero.

    Start: the force at which no kernel has shrunk. Stop: Newton's method, kept inside a bracket, moves
    f by at most rounding. Distance from the optimum: against brute force, none of 4,000 random
    problems of 2 to 4 weights (float64; ties, zeros and equal kernels included) was above by more than
    1e-8 of |a|^2; against all 2^K sets of K = 5 to 8 kernels of 1 to 9 weights, half of them nearly
    equal kernels, none of 15,800. Without the two last-but-one candidates, 1 in 800 was, by up to 2e-3.

    At the sizes that networks have, all sets cannot be tried. In 40 random groups of 64 kernels of 9 weights
    (half of them of nearly equal kernels) and 20 of 512, float64, with steps that leave from a twentieth of
    the kernels to all of them alive: the best lower bound over f lay at most 8e-5 of |a|^2 below the point
    found for 64 kernels (median 4e-6), and 4e-6 for 512 (median 1e-7), so the optimum is no further; and
    no set that takes in or leaves out one or two of the seven kernels at the border did better by more than
    rounding.
    """
    bearable, order = bearable_force(kernels).sort(1, descending=True)
    ranked = kernels.in_order(order)
    largest = ranked.values[..., :1]
    rank = torch.arange(order.shape[1], device=order.device).view(1, -1, 1)
    bearing = _count_bearing(ranked, bearable, step)
    threshold, gain = _best_single(ranked, step)
    sets = [rank < bearing, rank < bearing + 1]
    sets += [(rank < bearing + extra) & (rank != bearing + extra - 2) for extra in (1, 2)]
    for living in sets:
        force = _joint_force(ranked, living, step)
        solution = solve_half(ranked, force)
        living = living & (solution.root > 0)
        total = torch.where(living, solution.root, 0.0).sum(1, keepdim=True)
        lowered = torch.where(living, solution.gain + force * solution.root, 0.0).sum(1, keepdim=True)
        better = lowered - step * total.square() > gain
        gain = torch.where(better, lowered - step * total.square(), gain)
        threshold = torch.where(better, torch.where(living, solution.threshold, largest), threshold)
    return torch.empty_like(threshold).scatter_(1, order, threshold)


def _best_single(kernels: SortedKernels, step: Tensor) -> tuple[Tensor, Tensor]:
    """The thresholds and the gain of keeping only the kernel that gains most alone."""
    shrunk = (kernels.values - step).clamp(min=0)
    gain, best = (0.5 * shrunk.square().sum(-1, keepdim=True)).max(1, keepdim=True)
    threshold = kernels.values[..., :1].clone()
    return threshold.scatter_(1, best, torch.minimum(step, threshold.gather(1, best))), gain


def _count_bearing(kernels: SortedKernels, bearable: Tensor, step: Tensor) -> Tensor:
    """The largest n whose first n kernels bear their joint force, by bisection: (groups, 1, 1).

    They do if, at the force the n-th just bears, f / (2 t) is at least their X(f).
    """
    low = torch.zeros_like(step, dtype=torch.long)
    high = torch.full_like(low, bearable.shape[1])
    rank = torch.arange(bearable.shape[1], device=step.device).view(1, -1, 1)
    while (low < high).any():
        middle = (low + high + 1) // 2
        force = bearable.gather(1, (middle - 1).clamp(min=0))
        total = torch.where(rank < middle, solve_half(kernels, force).root, 0.0).sum(1, keepdim=True)
        bears = 2 * step * total <= force
        low, high = torch.where(bears, middle, low), torch.where(bears, high, middle - 1)
    return low


def _joint_force(kernels: SortedKernels, living: Tensor, step: Tensor) -> Tensor:
    """The root f of  sum over the living kernels of x_k(f) = f / (2 t),  (groups, 1, 1)."""
    low = torch.zeros_like(step)
    high = 2 * step * torch.where(living, kernels.sums[..., -1:].sqrt(), 0.0).sum(1, keepdim=True)
    force = high
    for _ in range(60):
        solution = solve_half(kernels, force)
        excess = torch.where(living, solution.root, 0.0).sum(1, keepdim=True) - force / (2 * step)
        slope = torch.where(living, solution.give, 0.0).sum(1, keepdim=True) + 1 / (2 * step)
        low, high = torch.where(excess > 0, force, low), torch.where(excess > 0, high, force)
        newton = force + excess / slope
        inside = (newton > low) & (newton < high)
        following = torch.where(inside, newton, torch.where(excess == 0, force, (low + high) / 2))
        if not ((following - force).abs() > 4 * torch.finfo(force.dtype).eps * force).any():
            break
        force = following
    return force
