"""Checks for what happens at zero, notebook 04: safe roots, tolerances, rebounds, subgradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hgsr_lite.series.checks.engine import Answer, Exercise, exercise
from hgsr_lite.series.checks.hierarchy import l2_norms, random_weight


def _with_gradient(function: Answer) -> Answer:
    """The function with the gradient of its sum beside its value; what is no tensor is left alone."""
    if not callable(function):
        return function

    def probe(x: Tensor) -> Any:
        x.requires_grad_()
        value = function(x)
        if not isinstance(value, Tensor):
            return value
        if not value.requires_grad:
            raise ValueError("the result has no gradient: build it from torch operations on x")
        return value, *torch.autograd.grad(value.sum(), x)

    probe.__name__ = getattr(function, "__name__", "your function")
    return probe


@exercise
def check_safe_root() -> Exercise:
    """4.1: `answer(x)` is the square root, with value 0 and gradient 0 at 0."""

    def root(x: Tensor) -> Tensor:
        return torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), 0.0)

    mistakes = {
        "The values are right, but the gradient at zero is infinite: 1 / (2 sqrt(0)).": torch.sqrt,
        "One torch.where picks the value, but backward still asks the root for its slope at 0 and multiplies "
        "that infinity by 0: NaN. Never let the root see a zero.": lambda x: torch.where(
            x > 0, x.sqrt(), 0.0
        ),
    }
    for tiny in (10.0**-exponent for exponent in range(4, 17)):
        mistakes |= {
            f"With {tiny:g} added under it, this is no longer the root of zero.": functools.partial(
                lambda x, tiny: (x + tiny).sqrt(), tiny=tiny
            ),
            f"Clamped at {tiny:g}, this is no longer the root of zero.": functools.partial(
                lambda x, tiny: x.clamp(min=tiny).sqrt(), tiny=tiny
            ),
        }
    cases = [
        (torch.tensor([4.0, 0.0, 9.0], dtype=torch.float64),),
        (torch.tensor([[0.0, 1e-6], [0.25, 0.0]], dtype=torch.float64),),
    ]
    return Exercise(root, cases, mistakes, seen_as=_with_gradient, exact_zeros=True)


@exercise
def check_small_share() -> Exercise:
    """4.4: `answer(weight, tolerance, relative)` is the share of weights below a tolerance."""

    def share(small: Tensor) -> Tensor:
        return small.double().mean()

    def in_units_of(measure: Callable[[Tensor], Tensor]) -> Answer:
        return lambda w, tolerance, relative: share(w.abs() < tolerance * (measure(w) if relative else 1))

    def root_mean_square(w: Tensor) -> Tensor:
        return w.square().mean().sqrt()

    def signed(w: Tensor, tolerance: float, relative: bool) -> Tensor:
        return share(w < tolerance * (root_mean_square(w) if relative else 1))

    right = in_units_of(root_mean_square)
    mistakes = {
        "Every negative weight counts as small: compare absolute values.": signed,
        "`relative` changes nothing: with it, the unit is the root mean square.": in_units_of(lambda w: 1),
        "Your unit is the standard deviation, which takes the mean off first; take the root mean square."
        "": in_units_of(torch.std),
        "Your unit is the mean square: its root is missing.": in_units_of(lambda w: w.square().mean()),
        "Your unit is the largest weight, which one outlier moves; take the root mean square.": in_units_of(
            lambda w: w.abs().max()
        ),
        "Your unit is the mean absolute value; take the root mean square.": in_units_of(
            lambda w: w.abs().mean()
        ),
        "A weight of exactly the tolerance is not below it.": lambda w, tolerance, relative: share(
            w.abs() <= tolerance * (root_mean_square(w) if relative else 1)
        ),
        "You returned how many there are: divide by the number of weights.": lambda w, *rest: (
            right(w, *rest) * w.numel()
        ),
    }
    weight = 0.05 * random_weight(8, 8, 3, 3) + 0.04
    cases = [(weight, 0.02, False), (weight, 0.7, True), (30 * weight, 0.7, True), (weight / 30, 0.4, True)]
    cases.append((torch.tensor([-0.5, 0.25, 3.0]), 0.5, False))
    return Exercise(right, cases, mistakes)


@exercise
def check_rebound_radius() -> Exercise:
    """4.3: `answer(step, degree)` is the w > 0 that a step down |w|^degree takes to -w."""
    mistakes = {
        "From there the step lands on zero. To land on -w it must cover 2 w.": lambda step, degree: (
            (step * degree) ** (1 / (2 - degree))
        ),
        "The slope of w^d is d w^(d-1): the factor d is missing.": lambda step, degree: (
            (step / 2) ** (1 / (2 - degree))
        ),
        "Nearly: that is w^(2-d). Take its root.": lambda step, degree: step * degree / 2,
        "Look at the exponent: to undo a power, take 1 over it.": lambda step, degree: (
            (step * degree / 2) ** (2 - degree)
        ),
        "The exponent has the wrong sign: a smaller step must give a smaller w.": lambda step, degree: (
            (step * degree / 2) ** (1 / (degree - 2))
        ),
    }
    cases = [(0.1, 1.0), (1e-3, 0.5), (1e-5, 0.25), (0.02, 1.5)]
    return Exercise(lambda step, degree: (step * degree / 2) ** (1 / (2 - degree)), cases, mistakes)


@exercise
def check_group_stays_zero() -> Exercise:
    """4.2: `answer(gradient, strength)` says which empty input channels the group lasso keeps empty."""

    def rule(measure: Callable[[Tensor], Tensor]) -> Answer:
        return lambda gradient, strength: measure(gradient.transpose(0, 1).flatten(1)) <= strength

    def length(g: Tensor) -> Tensor:
        return g.square().sum(1).sqrt()

    mistakes = {
        "The comparison is the wrong way round: a group stays empty where the loss pulls too little."
        "": lambda *case: ~rule(length)(*case),
        "You compare the largest entry, which is the rule of the plain l1 norm. The group lasso looks at the "
        "group's Euclidean norm.": rule(lambda g: g.abs().amax(1)),
        "You compare the l1 norm of the group's gradient. The group lasso looks at the Euclidean norm.": rule(
            lambda g: g.abs().sum(1)
        ),
        "You compare the squared norm: its root is missing.": rule(lambda g: g.square().sum(1)),
        "A pull of exactly the strength is too weak still: the channel stays empty.": lambda *case: (
            ~rule(lambda g: -length(g))(case[0], -case[1])
        ),
        "You answered for each output channel: these groups are input channels.": lambda g, strength: (
            length(g.flatten(1)) <= strength
        ),
        "You answered for each kernel: add up the kernels of an input channel first.": lambda g, strength: (
            l2_norms(g) <= strength
        ),
    }
    pull = torch.tensor([0.1, 0.25, 0.4, 0.6, 0.8, 1.0, 1.3, 2.0], dtype=torch.float64)
    gradient = random_weight(5, 8, 3, seed=9) * pull[:, None]
    cases = [(gradient, strength) for strength in (0.3, 0.5, 0.9, 1.5, 2.5, 4.0, 6.0)]
    cases.append((torch.tensor([[[3.0], [1.0]], [[4.0], [7.0]]]), 5.0))
    return Exercise(rule(length), cases, mistakes)
