"""The checks of notebook 02: norms that make zeros."""

from __future__ import annotations

import torch
from torch import Tensor

from hgsr_lite.groups import kernel_norms
from hgsr_lite.penalties import Penalty
from hgsr_lite.series.checks.engine import Exercise, exercise
from hgsr_lite.series.checks.foundations import sparse_layer, uneven_weight


@exercise
def check_exclusive_sparsity() -> Exercise:
    """2.1: `exclusive_sparsity(weight)`, feature-wise: the squares of the groups' l1 norms, added up."""
    mistakes = {
        "Each weight is squared on its own: that is squared l2. Add up inside the group, then square.": (
            lambda w: w.square().sum()
        ),
        "Each kernel is squared before the group is added up; the square belongs around the whole group.": (
            lambda w: kernel_norms(w, 1).square().sum()
        ),
        "Your groups are the rows (neuron-wise); feature-wise adds up over the output channels.": (
            lambda w: kernel_norms(w, 1).sum(1).square().sum()
        ),
        "The square is missing: without it this is the l1 norm of the whole layer.": (
            lambda w: w.abs().sum()
        ),
        "You squared the sum of all groups; each group has a square of its own.": (
            lambda w: w.abs().sum().square()
        ),
        "You used the l2 norm of the kernels; exclusive sparsity uses the l1 norm.": (
            lambda w: kernel_norms(w, 2).sum(0).square().sum()
        ),
        "Signs cancelled inside the groups: take absolute values first.": (
            lambda w: w.transpose(0, 1).flatten(1).sum(1).square().sum()
        ),
        "You return one number for each group; the penalty is their sum.": (
            lambda w: kernel_norms(w, 1).sum(0).square()
        ),
    }
    cases = [(uneven_weight(4, 3, 2, 2),), (uneven_weight(3, 3, 1, 3, seed=2),), (sparse_layer(),)]
    return Exercise(Penalty("es").value, cases, mistakes)


@exercise
def check_lasso_step() -> Exercise:
    """2.2: `lasso_step(z, step)`, the minimum of 0.5 (v - z)^2 + step |v| for every entry of z."""

    def right(z: Tensor, step: float) -> Tensor:
        return z.sign() * (z.abs() - step).clamp(min=0)

    mistakes = {
        "Weights between -step and step overshoot zero and change sign: they have to stop there.": (
            lambda z, step: z - step * z.sign()
        ),
        "All results are positive: give each weight its sign back.": (
            lambda z, step: (z.abs() - step).clamp(min=0)
        ),
        "Negative weights are all zero: the rule is the same on both sides of zero.": (
            lambda z, step: (z - step).clamp(min=0)
        ),
        "Large weights keep their value; here every survivor moves towards zero by one step.": (
            lambda z, step: torch.where(z.abs() <= step, 0.0, z)
        ),
        "That is the answer for the squared penalty: it shrinks in proportion and makes no zero.": (
            lambda z, step: z / (1 + 2 * step)
        ),
    }
    points = torch.tensor([[3.0, -1.0, 0.5], [0.0, -0.25, 1.0]])
    return Exercise(right, [(points, 0.6), (uneven_weight(5, 4), 0.05), (points, 0.0)], mistakes)


@exercise
def check_to_unit_ball() -> Exercise:
    """2.3: `to_unit_ball(weight)`, the weight times the positive number that makes its `gl12` 1."""
    penalty = Penalty("gl12").value

    mistakes = {
        "You divided by the penalty, as if it were of degree 1. How does gl12 grow when W doubles?": (
            lambda w: w / penalty(w)
        ),
        "You took the root of the penalty. P(rW) = r^(1/2) P(W) = 1: solve it for r.": (
            lambda w: w / penalty(w).sqrt()
        ),
        "Your groups are rows; feature-wise groups are columns, summed over the output channels.": (
            lambda w: w / Penalty("gl12", "neuron").value(w).square()
        ),
        "That puts the weight on the ball of the l1 norm; gl12 takes a root of each group's l1 norm.": (
            lambda w: w / w.abs().sum()
        ),
        "That puts the weight on the l2 sphere, not on the ball of gl12.": (lambda w: w / w.norm()),
        "You return the factor; multiply the weight by it.": (lambda w: penalty(w).pow(-2)),
    }
    cases = [(uneven_weight(4, 3, 2, 2),), (uneven_weight(3, 3, 1, 3, seed=2),), (sparse_layer(),)]
    return Exercise(lambda w: w / penalty(w).square(), cases, mistakes)
