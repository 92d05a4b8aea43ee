"""The checks of notebooks 07 and 08 and of appendix B: exact zeros, a smaller network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hgsr_lite.groups import kernel_norms
from hgsr_lite.series.checks.engine import Answer, Exercise, exercise


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer_with_zero_kernel() -> Tensor:
    """A weight (3, 2, 3, 3) whose kernels have very different lengths, one of them zero.

    >>> (kernel_norms(layer_with_zero_kernel(), 2) == 0).sum()
    tensor(1)
    """
    sizes = torch.tensor([[0.0, 1.0], [0.2, 0.5], [2.0, 0.05]])
    return _random(3, 2, 3, 3, seed=1) * sizes[:, :, None, None]


def uneven_norm() -> nn.BatchNorm2d:
    """A batch norm of three channels with nothing at its default, ready to be evaluated.

    >>> uneven_norm().training
    False
    """
    norm = nn.BatchNorm2d(3, eps=0.01)
    norm.weight.data = torch.tensor([0.5, -2.0, 0.0])
    norm.bias.data = torch.tensor([0.1, 0.0, -0.7])
    norm.running_mean = torch.tensor([0.4, -1.0, 3.0])
    norm.running_var = torch.tensor([0.04, 1.0, 0.0])
    return norm.eval()


def _layer(layer: nn.Conv2d, seed: int) -> nn.Conv2d:
    layer.weight.data = _random(*layer.weight.shape, seed=seed)
    if layer.bias is not None:
        layer.bias.data = _random(len(layer.bias), seed=seed + 1)
    return layer


@exercise
def check_shrink_kernels() -> Exercise:
    """7.1: `shrink_kernels(weight, step)`, a block soft-threshold with every kernel a group of its own."""

    def scaled(factor: Callable[[Tensor, float], Tensor], norm: int = 2) -> Answer:
        return lambda w, step: w * factor(kernel_norms(w, norm), step)[:, :, None, None]

    def cut(n: Tensor, step: float) -> Tensor:
        return torch.where(n > step, 1 - step / n, 0.0)

    def per_row(weight: Tensor, step: float) -> Tensor:
        return weight * cut(weight.flatten(1).norm(dim=1), step)[:, None, None, None]

    def per_column(weight: Tensor, step: float) -> Tensor:
        return weight * cut(weight.transpose(0, 1).flatten(1).norm(dim=1), step)[:, None, None]

    mistakes = {
        "That is the soft-threshold of every weight: here a whole kernel shrinks by one factor.": (
            lambda w, step: w.sign() * (w.abs() - step).clamp(min=0)
        ),
        "You measured the kernels by their l1 norm; the block soft-threshold needs their l2 length.": scaled(
            cut, 1
        ),
        "You made each output channel a group; here each kernel is one.": per_row,
        "You made each input channel a group; here each kernel is one.": per_column,
        "The short kernels went, but the survivors must shrink too: by the step, in length.": scaled(
            lambda n, step: (n > step).float()
        ),
        "Short kernels came out turned round: a factor below zero must become zero.": scaled(
            lambda n, step: torch.where(n > 0, 1 - step / n, 0.0)
        ),
        "NaN at the zero kernel: 0/0 or 0 times infinity; choose its factor with torch.where.": scaled(
            lambda n, step: (n - step).clamp(min=0) / n
        ),
    }
    cases = [(layer_with_zero_kernel(), 0.5), (_random(2, 4, 2, 2, seed=2), 1.5)]
    return Exercise(
        lambda w, step: scaled(cut)(w, step),
        cases,
        mistakes,
    )


@exercise
def check_proximal_strength() -> Exercise:
    """7.2: `proximal_strength(strength, momentum)`, the strength of a proximal run with an equal push."""
    mistakes = {
        "Momentum makes the gradient's push larger, so the proximal run needs more, not less.": (
            lambda strength, momentum: strength * (1 - momentum)
        ),
        "Two steps are not all: 1 + m + m^2 + ... goes on.": (
            lambda strength, momentum: strength * (1 + momentum)
        ),
        "That is right at a momentum of 0.9 only.": lambda strength, momentum: 10 * strength,
        "1 / m is not the sum of 1 + m + m^2 + ...": lambda strength, momentum: strength / momentum,
        "The strength cannot stay: momentum multiplies the gradient, not the proximal step.": (
            lambda strength, momentum: strength
        ),
    }
    cases = [(1e-4, 0.9), (0.02, 0.5), (1.0, 0.99)]
    return Exercise(lambda strength, momentum: strength / (1 - momentum), cases, mistakes)


@exercise
def check_deadly_step() -> Exercise:
    """B.1: `deadly_step(size, count)`, the step from which on `gl12`'s prox of equal weights is zero."""

    def right(a: Tensor, m: Tensor) -> Tensor:
        return m.sqrt() * (2 * a / 3) ** 1.5

    mistakes = {
        "There the cubic loses its solutions; but zero wins earlier. Compare the objective's values.": (
            lambda a, m: m.sqrt() * 4 * (a / 3) ** 1.5
        ),
        "That is one weight's step: a group of several costs more, and saves more.": (
            lambda a, m: right(a, torch.ones_like(m))
        ),
        "The step does not grow with the number of weights: one root is taken for all of them.": (
            lambda a, m: m.sqrt() * right(a, m)
        ),
        "More weights in a group hold it up, they do not make it go sooner.": lambda a, m: right(a, 1 / m),
        "Right at a = 1.5 only: how does t grow with a? (Scale v and a together.)": (
            lambda a, m: m.sqrt() * 2 * a / 3
        ),
        "You have the size that goes at a given step; turn it round.": (
            lambda t, m: 1.5 * (t / m.sqrt()) ** (2 / 3)
        ),
    }
    sizes, counts = torch.tensor([0.3, 1.0, 1.5, 6.0]), torch.tensor([1.0, 2.0, 4.0, 9.0])
    return Exercise(right, [(sizes, counts), (torch.tensor([2.0, 8.0]), torch.tensor([3.0, 3.0]))], mistakes)


@exercise
def check_emptying_steps() -> Exercise:
    """B.2: `emptying_steps(norms)`, from which step on `hsq_gl` empties each kernel of one group."""

    def differences(norms: Tensor) -> Tensor:
        """How much larger kernel i (column) is than kernel k (row)."""
        return norms[None] - norms[:, None]

    def right(norms: Tensor) -> Tensor:
        return norms / (2 * differences(norms).clamp(min=0).sum(1))

    def by_all(norms: Tensor) -> Tensor:
        return norms / (2 * differences(norms).sum(1))

    mistakes = {
        "The survivors have shrunk too: A is what is left of them, S_m - m tau.": lambda n: (
            n / (2 * (n * (differences(n) > 0)).sum(1))
        ),
        "The square's derivative brings a 2: tau = 2 t A.": lambda n: 2 * right(n),
        "You counted all kernels. The smaller ones are gone by then.": lambda n: torch.where(
            n == n.max(), torch.inf, by_all(n)
        ),
        "No step is negative. You counted all kernels, but the smaller ones are gone by then.": by_all,
        "You added up the smaller kernels. They are gone by then: the larger ones press.": lambda n: (
            n / (2 * (-differences(n)).clamp(min=0).sum(1))
        ),
        "You let one larger kernel press, the largest: all that are larger do.": lambda n: (
            n / (2 * (n.max() - n))
        ),
        "The largest kernel is not empty at once: no step empties it, return infinity.": lambda n: (
            torch.where(n == n.max(), 0.0, right(n))
        ),
        "Upside down: a smaller norm goes at a smaller step.": lambda n: 1 / right(n),
    }
    cases = [
        (torch.tensor(norms),) for norms in ([5.0, 1.0, 3.0, 0.5], [2.0, 2.0, 1.0], [0.25, 4.0, 0.25], [7.0])
    ]
    return Exercise(right, cases, mistakes)


@exercise
def check_constant_behind() -> Exercise:
    """8.1: `constant_behind(norm)`, what each channel of a batch norm puts out where it is given zeros."""

    def right(norm: nn.BatchNorm2d) -> Tensor:
        return norm.bias - norm.weight * norm.running_mean * (norm.running_var + norm.eps).rsqrt()

    mistakes = {
        "That is the bias alone. In eval mode the running mean is subtracted first, from the zeros too.": (
            lambda norm: norm.bias
        ),
        "The sign of the mean: zero minus the mean is negative.": (
            lambda norm: norm.bias + norm.weight * norm.running_mean * (norm.running_var + norm.eps).rsqrt()
        ),
        "The scale is missing: between the division and the bias, a batch norm multiplies by its weight.": (
            lambda norm: norm.bias - norm.running_mean * (norm.running_var + norm.eps).rsqrt()
        ),
        "You divided by the variance; the division is by its root.": (
            lambda norm: norm.bias - norm.weight * norm.running_mean / (norm.running_var + norm.eps)
        ),
        "Nearly: eps belongs under the root, added to the variance.": (
            lambda norm: norm.bias - norm.weight * norm.running_mean / (norm.running_var.sqrt() + norm.eps)
        ),
        "You forgot eps, which is added to the variance (and saves a channel of variance zero).": (
            lambda norm: norm.bias - norm.weight * norm.running_mean * norm.running_var.rsqrt()
        ),
        "The bias is missing: a batch norm adds it last.": (lambda norm: right(norm) - norm.bias),
    }
    first = nn.BatchNorm2d(2).eval()
    first.bias.data = torch.tensor([0.3, -0.2])
    return Exercise(right, [(uneven_norm(),), (first,)], mistakes)


@exercise
def check_folded_bias() -> Exercise:
    """8.2: `folded_bias(layer, constants)`, the bias with what constant input channels contribute."""

    def old(layer: nn.Conv2d) -> Tensor:
        return torch.zeros(layer.out_channels) if layer.bias is None else layer.bias

    def right(layer: nn.Conv2d, constants: Tensor) -> Tensor:
        return old(layer) + layer.weight.sum((2, 3)) @ constants

    mistakes = {
        "The layer's own bias got lost: the constants come on top of it.": (
            lambda layer, constants: right(layer, constants) - old(layer)
        ),
        "You subtracted the contribution. The removed channels added it, so the bias must add it.": (
            lambda layer, constants: 2 * old(layer) - right(layer, constants)
        ),
        "You averaged over the kernel; every one of its weights meets the constant: sum them.": (
            lambda layer, constants: old(layer) + layer.weight.mean((2, 3)) @ constants
        ),
        "Only one weight of each kernel was used; all of them meet the constant.": (
            lambda layer, constants: (
                old(layer)
                + layer.weight[:, :, layer.weight.shape[2] // 2, layer.weight.shape[3] // 2] @ constants
            )
        ),
        "Signs matter: weights are added as they are, not their absolute values.": (
            lambda layer, constants: old(layer) + layer.weight.abs().sum((2, 3)) @ constants
        ),
        "The constants were added up first: each must meet the kernels of its own channel.": (
            lambda layer, constants: old(layer) + layer.weight.sum((1, 2, 3)) * constants.sum()
        ),
        "`layer.bias` may be None: a layer without a bias begins with zero.": (
            lambda layer, constants: layer.bias + layer.weight.sum((2, 3)) @ constants
        ),
    }
    cases = [
        (_layer(nn.Conv2d(3, 4, 3), 6), torch.tensor([0.5, 0.0, -1.0])),
        (_layer(nn.Conv2d(2, 3, (1, 2), bias=False), 8), torch.tensor([2.0, 1.0])),
    ]
    return Exercise(right, cases, mistakes)
