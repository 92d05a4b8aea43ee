"""Checks for notebooks 09 and 10: weights at scale, a penalty's pace, dead layers, choosing, one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
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


@exercise
def check_smallest_good() -> Exercise:
    """10.1: `answer(parameters, accuracy, least)` is the number of the run to ship."""

    def pick(parameters: Tensor, good: Tensor) -> Tensor:
        return torch.where(good, parameters, torch.inf).argmin()

    mistakes = {
        "That is the smallest network, whatever its accuracy.": lambda p, a, least: p.argmin(),
        "That is the most accurate network, whatever its size.": lambda p, a, least: a.argmax(),
        "A run of exactly the least accuracy is good enough.": lambda p, a, least: pick(p, a > least),
        "That counts among the good runs only: give the place in the whole list.": lambda p, a, least: p[
            a >= least
        ].argmin(),
        "That is the largest of the good networks.": lambda p, a, least: torch.where(
            a >= least, p, -1
        ).argmax(),
        "That is the number of its parameters, not its place in the list.": lambda p, a, least: p[
            a >= least
        ].min(),
    }
    cases = [
        (torch.tensor([500.0, 100.0, 300.0, 200.0]), torch.tensor([0.98, 0.5, 0.96, 0.9]), 0.95),
        (torch.tensor([50.0, 900.0, 400.0, 700.0]), torch.tensor([0.25, 0.75, 0.5, 1.0]), 0.5),
        (torch.tensor([10.0, 90.0, 40.0]), torch.tensor([0.2, 0.9, 0.8]), 0.85),
    ]
    return Exercise(lambda p, a, least: pick(p, a >= least), cases, mistakes)


@exercise
def check_on_the_front() -> Exercise:
    """10.2: `answer(accuracy, sparsity)` says of each run whether no other run beats it."""

    def front(a: Tensor, s: Tensor) -> Tensor:
        no_worse = (a[None] >= a[:, None]) & (s[None] >= s[:, None])
        better = (a[None] > a[:, None]) | (s[None] > s[:, None])
        return ~(no_worse & better).any(1)

    mistakes = {
        "A run can be on the front without the best accuracy: by being sparser.": lambda a, s: a == a.max(),
        "A run can be on the front without the highest sparsity: by being more accurate.": lambda a, s: (
            s == s.max()
        ),
        "There is more on the front than the two ends.": lambda a, s: (a == a.max()) | (s == s.max()),
        "A run is also beaten by one that is equal in one figure and better in the other.": lambda a, s: (
            ~((a[None] > a[:, None]) & (s[None] > s[:, None])).any(1)
        ),
        "As written, a run beats itself: being as good in both figures is not enough.": lambda a, s: (
            ~((a[None] >= a[:, None]) & (s[None] >= s[:, None])).any(1)
        ),
        "Those are the runs that are beaten: turn it round.": lambda a, s: ~front(a, s),
        "To beat a run, being better in one figure is not enough: no worse in the other.": (
            lambda a, s: ~((a[None] > a[:, None]) | (s[None] > s[:, None])).any(1)
        ),
    }
    cases = [
        (torch.tensor([0.99, 0.98, 0.90, 0.97, 0.98]), torch.tensor([0.0, 0.5, 0.9, 0.4, 0.3])),
        (torch.tensor([0.5, 0.5, 0.4, 0.6]), torch.tensor([0.2, 0.2, 0.2, 0.1])),
        (torch.tensor([0.9]), torch.tensor([0.1])),
    ]
    return Exercise(front, cases, mistakes)


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
