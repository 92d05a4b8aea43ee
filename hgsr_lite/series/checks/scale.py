"""Checks for notebooks 09 and 10: weights at scale, a penalty's pace, dead layers, choosing, one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from hgsr_lite.groups import Layout
from hgsr_lite.penalties import Penalty
from hgsr_lite.series.checks.engine import Answer, Exercise, exercise


def _joined(result: Any) -> Any:
    """Names in their order as one text, whatever they came in."""
    is_names = isinstance(result, list | tuple) and all(isinstance(name, str) for name in result)
    return ", ".join(result) if is_names else result


def _with_names_joined(answer: Answer) -> Answer:
    """The same function, its list of names as one text, which the engine can compare."""
    if not callable(answer):
        return answer

    def probe(model: nn.Module, tolerance: float) -> Any:
        return _joined(answer(model, tolerance))

    probe.__name__ = getattr(answer, "__name__", "your function")
    return probe


@torch.no_grad()
def _half_dead() -> nn.Module:
    """Convolutions that are empty, nearly empty, negative, or full but for one weight; other empty layers."""
    generator = torch.Generator().manual_seed(0)
    body = nn.Sequential(*(nn.Conv2d(2, 2, 3) for _ in range(6)))
    model = nn.Sequential(body, nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    for layer in body:
        layer.weight.copy_(torch.rand(layer.weight.shape, generator=generator) + 0.5)
    body[1].weight.zero_()
    body[2].weight.mul_(-1)
    body[3].weight.mul_(1e-4)
    body[4].weight.mul_(1e-4)[0, 0, 0, 0] = 0.01
    body[5].weight[0, 0, 0, 0] = 0.0
    model[1].weight.zero_()
    model[3].weight.zero_()
    return model


_STEPS = ((0, 0.1, 1.0, 0.5), (1, 0.05, 8.0, 0.25), (2, 0.2, 0.5, 0.9))


def _step_case(
    seed: int, lr: float, strength: float, mix: float
) -> tuple[Tensor, Tensor, float, float, float]:
    """A 3x2 layer with one all-zero group, on which the loss does not pull either."""
    generator = torch.Generator().manual_seed(seed)
    weight, gradient = (torch.randn(3, 3, 4, generator=generator) for _ in range(2))
    weight[:, 1], gradient[:, 1] = 0.0, 0.0
    return weight, gradient, lr, strength, mix


@exercise
def check_count_weights() -> Exercise:
    """9.1: `answer(channels, in_channels)` counts the weights of a chain of 3x3 convolutions."""

    def kernels(inputs: Sequence[int], outputs: Sequence[int]) -> int:
        return sum(i * o for i, o in zip(inputs, outputs, strict=False))

    def count(channels: list[int], in_channels: int) -> int:
        return 9 * kernels([in_channels, *channels], channels)

    mistakes = {
        "A kernel of a 3x3 convolution has nine weights.": lambda c, i: count(c, i) // 9,
        "Those are weights and biases: the penalty leaves the biases alone.": lambda c, i: (
            count(c, i) + sum(c)
        ),
        "The first convolution is missing: it reads the image.": lambda c, i: 9 * kernels(c, c[1:]),
        "A layer reads what the layer before it makes, not as many channels as it makes.": lambda c, i: (
            9 * kernels(c, c)
        ),
        "Every layer but the first reads the layer before it, not the image.": lambda c, i: 9 * i * sum(c),
    }
    return Exercise(count, [([2, 4], 3), ([8, 16, 32, 16, 16], 3), ([5], 1)], mistakes)


@exercise
def check_steps_to_zero() -> Exercise:
    """9.2: `answer(size, lr, strength, force, momentum)` steps until the penalty has eaten a weight."""

    def steps(size: float, lr: float, strength: float, force: float, momentum: float) -> float:
        return size * (1 - momentum) / (lr * strength * force)

    mistakes = {
        "Momentum is missing: each push is felt again in the steps that follow.": lambda size, lr, s, f, m: (
            size / (lr * s * f)
        ),
        "Momentum makes each step longer, so fewer steps are needed, not more.": lambda size, lr, s, f, m: (
            size / (lr * s * f) / (1 - m)
        ),
        "Momentum m multiplies a steady push by 1 / (1 - m), not by m or 1 + m.": lambda size, lr, s, f, m: (
            size / (lr * s * f) / m
        ),
        "The strength is missing.": lambda size, lr, s, f, m: size * (1 - m) / (lr * f),
        "The learning rate is missing.": lambda size, lr, s, f, m: size * (1 - m) / (s * f),
        "The force is missing.": lambda size, lr, s, f, m: size * (1 - m) / (lr * s),
        "Upside down: that is the share of the weight that goes in one step.": lambda size, lr, s, f, m: (
            lr * s * f / (1 - m) / size
        ),
    }
    cases = [(0.1, 0.01, 1e-3, 32.0, 0.9), (0.05, 0.1, 1e-4, 128.0, 0.5), (1.0, 0.05, 0.01, 4.0, 0.8)]
    return Exercise(steps, cases, mistakes)


@exercise
def check_empty_layers() -> Exercise:
    """9.3: `answer(model, tolerance)` names the convolutions whose every weight is below tolerance."""

    def names(model: nn.Module, empty: Any, kinds: Any = nn.Conv2d) -> str:
        return _joined(
            [name for name, module in model.named_modules() if isinstance(module, kinds) and empty(module)]
        )

    def right(model: nn.Module, tolerance: float) -> str:
        return names(model, lambda m: bool((m.weight.abs() < tolerance).all()))

    mistakes = {
        "It finds no layer at all: compare sizes, and ask for all weights of a layer.": lambda model, t: "",
        "One small weight does not make a layer empty: all of them must be small.": lambda model, t: names(
            model, lambda m: bool((m.weight.abs() < t).any())
        ),
        "A large negative weight is not small: compare absolute values.": lambda model, t: names(
            model, lambda m: bool((m.weight < t).all())
        ),
        "Only convolutions are asked for, not linear layers or batch norms.": lambda model, t: names(
            model, lambda m: bool((m.weight.abs() < t).all()), (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
        ),
        "You ask for exact zeros only: use the tolerance.": lambda model, t: names(
            model, lambda m: bool((m.weight == 0).all())
        ),
        "The mean can be small while single weights are not.": lambda model, t: names(
            model, lambda m: bool(m.weight.abs().mean() < t)
        ),
    }
    return Exercise(right, [(_half_dead(), 1e-3), (_half_dead(), 0.2)], mistakes, seen_as=_with_names_joined)


def _seeds_case(settings: int, seeds: int, seed: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Parameters, accuracies, dense accuracies: a seed moves all networks alike, and each a bit alone."""
    generator = torch.Generator().manual_seed(seed)
    shared, below = (torch.rand(size, generator=generator) for size in (seeds, settings))
    alone = torch.randn(settings, seeds, generator=generator)
    dense = 0.95 + 0.04 * shared.double()
    parameters = 1000.0 * (1 + torch.randperm(settings, generator=generator))
    return parameters, dense - 0.02 * below[:, None] + 0.004 * alone, dense, 0.01


@exercise
def check_smallest_sure() -> Exercise:
    """10.1: `answer(parameters, accuracy, dense, allowed)`, a place in the list, or -1.

    The smallest network whose paired interval of accuracy minus dense lies at `-allowed` or above.
    """

    def pick(parameters: Tensor, good: Tensor, nothing: int = -1) -> int:
        return int(torch.where(good, parameters, torch.inf).argmin()) if bool(good.any()) else nothing

    def half_width(values: Tensor, level: float = 0.975, correction: int = 1, power: float = 0.5) -> Tensor:
        seeds = values.shape[-1]
        return float(stdtrit(seeds - 1, level)) * values.std(-1, correction=correction) / seeds**power

    def low(accuracy: Tensor, dense: Tensor, **options: float) -> Tensor:
        return (accuracy - dense).mean(1) - half_width(accuracy - dense, **options)

    def if_low(**options: float) -> Answer:
        return lambda p, a, dense, allowed: pick(p, low(a, dense, **options) >= -allowed)

    def normal(p: Tensor, a: Tensor, dense: Tensor, allowed: float) -> int:
        d = a - dense
        return pick(p, d.mean(1) - 1.96 * d.std(1) / d.shape[1] ** 0.5 >= -allowed)

    def apart(p: Tensor, a: Tensor, dense: Tensor, allowed: float) -> int:
        both = (half_width(a).square() + half_width(dense).square()).sqrt()
        return pick(p, a.mean(1) - dense.mean() - both >= -allowed)

    def among_the_good(p: Tensor, a: Tensor, dense: Tensor, allowed: float) -> int:
        good = low(a, dense) >= -allowed
        return int(p[good].argmin()) if bool(good.any()) else -1

    mistakes = {
        "The mean is good enough, its interval is not: look at the lower end.": lambda p, a, dense, allowed: (
            pick(p, (a - dense).mean(1) >= -allowed)
        ),
        "You asked whether it may be good, by the upper end; ask whether it surely is.": (
            lambda p, a, dense, allowed: pick(p, (a - dense).mean(1) + half_width(a - dense) >= -allowed)
        ),
        "Subtract dense seed by seed first: your interval is that of the accuracy, not of the difference.": (
            lambda p, a, dense, allowed: pick(p, a.mean(1) - half_width(a) >= dense.mean() - allowed)
        ),
        "You joined two spreads. Subtract dense seed by seed first: what a seed does to both goes away.": (
            apart
        ),
        "1.96 is right for many seeds: for a few, the factor is Student's t.": normal,
        "That is the spread of single runs: the mean of n seeds varies less, by the root of n.": if_low(
            power=0.0
        ),
        "Your deviation divides by n; the mean came from the same values, so divide by n - 1.": if_low(
            correction=0
        ),
        "That is a 90 % interval: the 5 % left over lie at both ends, 2.5 % at each.": if_low(level=0.95),
        "The worst seed is not the lower end of the interval.": lambda p, a, dense, allowed: pick(
            p, (a - dense).amin(1) >= -allowed
        ),
        "An interval that begins exactly at the limit is good enough: use >=.": lambda p, a, dense, allowed: (
            pick(p, low(a, dense) > -allowed)
        ),
        "Your number counts among the good ones only: give the place in the whole list.": among_the_good,
        "Where none is surely good enough, return -1.": lambda p, a, dense, allowed: pick(
            p, low(a, dense) >= -allowed, nothing=0
        ),
        "That is the largest of the good networks.": lambda p, a, dense, allowed: pick(
            -p, low(a, dense) >= -allowed
        ),
        "That is the smallest network, whatever its accuracy.": lambda p, a, dense, allowed: int(p.argmin()),
    }
    # Binary fractions, all seeds alike: an interval begins exactly at the limit. Then none is good enough.
    dense = torch.tensor([0.875, 0.75, 0.9375], dtype=torch.float64)
    below = torch.tensor([[0.25], [0.0625], [0.0]], dtype=torch.float64)
    sizes = torch.tensor([100.0, 200.0, 300.0])
    cases = [(sizes, dense - below, dense, 0.0625), (sizes, dense - below - 0.5, dense, 0.0625)]
    cases += [_seeds_case(4 + n % 3, 3 + n % 4, seed=n) for n in range(40)]
    return Exercise(if_low(), cases, mistakes)


@exercise
def check_on_the_front() -> Exercise:
    """10.2: `answer(figures)`, (runs, figures), says of each run whether no other run beats it."""

    def judged(rule: Answer) -> Answer:
        """The rule on all pairs: the run in the row is judged by the one in the column."""
        return lambda figures: ~rule(figures[None], figures[:, None]).any(1)

    def beats(a: Tensor, b: Tensor) -> Tensor:
        return (a >= b).all(-1) & (a > b).any(-1)

    def without_twins(figures: Tensor) -> Tensor:
        same = (figures[None] == figures[:, None]).all(-1)
        return right(figures) & ~same.tril(-1).any(1)

    right = judged(beats)
    mistakes = {
        "To beat a run, being better in one figure is not enough: no worse in *all* figures.": judged(
            lambda a, b: (a > b).any(-1)
        ),
        "A run is also beaten by one that is equal in some figures and better in another.": judged(
            lambda a, b: (a > b).all(-1)
        ),
        "As written, a run beats itself: being as good in all figures is not enough.": judged(
            lambda a, b: (a >= b).all(-1)
        ),
        "Those are the beaten ones: turn it round.": lambda figures: ~right(figures),
        "Those are the runs that beat no other: wanted are those that no other beats.": judged(
            lambda a, b: beats(b, a)
        ),
        "You looked at the first two figures only; there may be any number.": lambda figures: right(
            figures[:, :2]
        ),
        "A run can be on the front without being the best in any figure.": lambda figures: (
            figures == figures.amax(0)
        ).any(1),
        "Equal runs do not beat each other: all of them stay.": without_twins,
    }
    cases = [
        (torch.tensor([[0.99, 0.0], [0.98, 0.5], [0.90, 0.9], [0.97, 0.4], [0.98, 0.3]]),),
        (torch.tensor([[0.5, 0.2], [0.5, 0.2], [0.4, 0.2], [0.6, 0.1]]),),
        (
            torch.tensor(
                [[3.0, 1.0, 2.0], [3.0, 1.0, 1.0], [1.0, 1.0, 5.0], [2.0, 2.0, 2.0], [2.0, 1.0, 4.0]]
            ),
        ),
        (torch.tensor([[0.5], [0.75], [0.25], [0.75]]),),
        (torch.tensor([[0.9, 0.1, 0.3, -2.0]]),),
    ]
    return Exercise(right, cases, mistakes)


@exercise
def check_one_step() -> Exercise:
    """10.3: `answer(weight, gradient, lr, strength, mix)` is one proximal training step.

    Plain SGD on the loss, then the proximal operator of the feature-wise group lasso mixed with l1."""

    def shrink(z: Tensor, l1_step: float, step: float, grouping: str = "feature") -> Tensor:
        return Penalty("gl", grouping).prox(z, step, Layout(), l1_step=l1_step)

    def right(w: Tensor, g: Tensor, lr: float, strength: float, mix: float) -> Tensor:
        return shrink(w - lr * g, lr * strength * mix, lr * strength * (1 - mix))

    def block_first(w: Tensor, g: Tensor, lr: float, strength: float, mix: float) -> Tensor:
        blocks = shrink(w - lr * g, 0.0, lr * strength * (1 - mix))
        return shrink(blocks, lr * strength * mix, 0.0)

    mistakes = {
        "That is the step on the loss alone: the proximal operator is missing.": lambda w, g, lr, s, m: (
            w - lr * g
        ),
        "First the gradient step, then the proximal operator on its result.": lambda w, g, lr, s, m: (
            shrink(w, lr * s * m, lr * s * (1 - m)) - lr * g
        ),
        "The thresholds lack the learning rate.": lambda w, g, lr, s, m: shrink(
            w - lr * g, s * m, s * (1 - m)
        ),
        "First the l1 part, then the group: the other order is not the joint solution.": block_first,
        "Those are the neuron-wise groups: a feature-wise group is W[:, i].": lambda w, g, lr, s, m: shrink(
            w - lr * g, lr * s * m, lr * s * (1 - m), "neuron"
        ),
        "The shares are swapped: mix is that of the l1 norm.": lambda w, g, lr, s, m: shrink(
            w - lr * g, lr * s * (1 - m), lr * s * m
        ),
        "The l1 part is missing.": lambda w, g, lr, s, m: shrink(w - lr * g, 0.0, lr * s * (1 - m)),
        "The group part is missing.": lambda w, g, lr, s, m: shrink(w - lr * g, lr * s * m, 0.0),
    }
    return Exercise(right, [_step_case(seed, *rest) for seed, *rest in _STEPS], mistakes)
