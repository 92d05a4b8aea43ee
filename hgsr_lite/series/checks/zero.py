"""Checks for what happens at zero, notebook 04: a safe penalty, tolerances, rebounds, subgradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hgsr_lite.series.checks.engine import Answer, Exercise, exercise
from hgsr_lite.series.checks.hierarchy import l2_norms, random_weight, written_out


def _with_gradient(function: Answer) -> Answer:
    """The function with the gradient of its sum beside its value; what is no number is left alone.

    A value of 0 that hangs on nothing, as a loop over no living channel returns it, has the gradient 0.
    """
    if not callable(function):
        return function
    function = written_out(function)

    def probe(x: Tensor) -> Any:
        x.requires_grad_()
        value = function(x)
        if isinstance(value, int | float) and value == 0:
            value = torch.zeros((), dtype=x.dtype)
        if not isinstance(value, Tensor):
            return value
        if not value.requires_grad and bool((value == 0).all()):
            return value, torch.zeros_like(x)
        if not value.requires_grad:
            raise ValueError("the result has no gradient: build it from torch operations on x")
        return value, *torch.autograd.grad(value.sum(), x)

    probe.__name__ = getattr(function, "__name__", "your function")
    return probe


@exercise
def check_safe_gl12() -> Exercise:
    """4.1: `answer(weight)` is `gl12`, feature-wise, and autograd's gradient at an empty channel is 0."""

    def channel_sums(w: Tensor) -> Tensor:
        return w.abs().transpose(0, 1).flatten(1).sum(1)

    def roots(sums: Tensor) -> Tensor:
        return torch.where(sums > 0, torch.where(sums > 0, sums, 1.0).sqrt(), 0.0)

    def no_zero_weight(w: Tensor) -> Tensor:
        return torch.where(w != 0, w.abs(), 1.0)

    mistakes = {
        "An empty channel's gradient is NaN: infinity times zero. One torch.where around the root does not "
        "end it, for backward still visits the root at 0: never let the root see a zero.": lambda w: (
            channel_sums(w).sqrt().sum()
        ),
        "A zero weight in a living channel is harmless; you made it 1. Guard the channel's sum.": lambda w: (
            torch.where(channel_sums(w) > 0, channel_sums(no_zero_weight(w)).sqrt(), 0.0).sum()
        ),
        "You made every zero weight 1, and that stayed. Guard the channel's sum, and throw the harmless "
        "result away.": lambda w: channel_sums(no_zero_weight(w)).sqrt().sum(),
        "An empty channel is worth 1 now: the outer torch.where must throw the harmless result away.": (
            lambda w: torch.where(channel_sums(w) > 0, channel_sums(w), 1.0).sqrt().sum()
        ),
        "You summed over the input channels, which is neuron-wise. A feature-wise group holds the kernels "
        "that read one input channel.": lambda w: roots(w.abs().flatten(1).sum(1)).sum(),
        "You took the root of every kernel: add up a channel's kernels first.": lambda w: roots(
            w.abs().flatten(2).sum(2)
        ).sum(),
        "You took the root of every weight: add up a channel's weights first.": lambda w: roots(
            w.abs()
        ).sum(),
        "You took one root of the whole layer: each channel has its own.": lambda w: roots(w.abs().sum()),
        "That is the group lasso: under the root of `gl12` stand absolute values, not squares.": lambda w: (
            roots(channel_sums(w.square())).sum()
        ),
        "You returned one number per channel: add them up.": lambda w: roots(channel_sums(w)),
    }
    for tiny in (10.0**-exponent for exponent in range(4, 17)):
        mistakes[f"With {tiny:g} under the root, an empty channel is worth more than 0."] = functools.partial(
            lambda w, tiny: (channel_sums(w) + tiny).sqrt().sum(), tiny=tiny
        )
    for tiny in (10.0**-exponent for exponent in range(4, 11)):  # smaller, it behaves like the one above
        mistakes[f"Clamped at {tiny:g}, an empty channel is worth more than 0."] = functools.partial(
            lambda w, tiny: channel_sums(w).clamp(min=tiny).sqrt().sum(), tiny=tiny
        )
    with_zeros = random_weight(4, 3, 5, seed=12)
    with_zeros[:, 1] = 0
    with_zeros[1, 2] = 0
    with_zeros[0, 0, 0] = 0
    small_channel = random_weight(3, 4, 2, 2, seed=13)
    small_channel[:, 2] *= 1e-7
    cases = [(with_zeros,), (small_channel,), (torch.zeros(2, 3, 2, dtype=torch.float64),)]
    return Exercise(
        lambda w: roots(channel_sums(w)).sum(), cases, mistakes, seen_as=_with_gradient, exact_zeros=True
    )


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
        "That is right at degree 1 only.": lambda step, degree: step / 2,
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
