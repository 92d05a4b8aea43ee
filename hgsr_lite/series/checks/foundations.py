"""The checks of notebooks 00 and 01: small weights, groups in a weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hgsr_lite.groups import Layout, kernel_norms
from hgsr_lite.series.checks.engine import Exercise, exercise


def uneven_weight(*shape: int, seed: int = 0) -> Tensor:
    """A weight whose entries differ in size, some of them zero, some just below 1e-3, of both signs.

    >>> uneven_weight(3, 2).shape
    torch.Size([3, 2])
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator)
    scale = torch.tensor([0.0, 4e-4, 0.3, 1.0])
    return weight.clamp(-2, 2) * scale[torch.randint(4, shape, generator=generator)]


def sparse_layer() -> Tensor:
    """Channel 1 ignored, 2 read by cancelling weights; a zero kernel in channel 3, a zero weight in 4.

    >>> kernel_norms(sparse_layer(), 1).sum(0) == 0
    tensor([False,  True, False, False, False])
    """
    weight = uneven_weight(3, 5, 2, 2, seed=1) + 0.25
    weight[:, 1] = 0
    weight[:, 2] = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    weight[1, 3] = 0
    weight[0, 4, 0, 0] = 0
    return weight


def _kept(weight: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    return weight[:, alive], alive.nonzero().flatten()


def _sparse_module(module: nn.Module, ignored: tuple[int, ...]) -> nn.Module:
    """A layer that ignores the given input channels, made by looking at what each weight reads."""
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(module.weight.shape, generator=generator)
    per_group = module.in_channels // module.groups
    for channel in ignored:
        if Layout.of(module).transposed:
            weight[channel] = 0
        else:
            group, inside = divmod(channel, per_group)
            rows = slice(group * len(weight) // module.groups, (group + 1) * len(weight) // module.groups)
            weight[rows, inside] = 0
    module.weight = nn.Parameter(weight, requires_grad=False)
    return module


@exercise
def check_share_below() -> Exercise:
    """0.1: `share_below(weight, tolerance)`, the share of weights of absolute value below the tolerance."""
    mistakes = {
        "A weight of -2 is far from zero, though smaller than the tolerance: what measures its size?": (
            lambda w, tolerance: (w < tolerance).double().mean()
        ),
        "You returned how many there are; a share lies between 0 and 1.": (
            lambda w, tolerance: (w.abs() < tolerance).sum()
        ),
        "That is the share that survives; wanted is the share that is small.": (
            lambda w, tolerance: (w.abs() >= tolerance).double().mean()
        ),
        "You count exact zeros only: a subgradient step nearly never makes one, hence the tolerance.": (
            lambda w, tolerance: (w == 0).double().mean()
        ),
        "A weight of exactly the tolerance is not below it.": (
            lambda w, tolerance: (w.abs() <= tolerance).double().mean()
        ),
    }
    cases = [
        (uneven_weight(4, 3, 3, 3), 1e-3),
        (uneven_weight(6, 5, seed=3), 0.1),
        (torch.tensor([-2.0, 0.0, 3.0]), 0.5),
        (torch.tensor([-0.5, 0.25, 3.0]), 0.5),
    ]
    return Exercise(lambda w, tolerance: (w.abs() < tolerance).double().mean(), cases, mistakes)


@exercise
def check_zero_small() -> Exercise:
    """0.2: `zero_small(weight, tolerance)`, a copy with the weights below the tolerance set to zero."""

    def right(weight: Tensor, tolerance: float) -> Tensor:
        return torch.where(weight.abs() < tolerance, 0.0, weight)

    mistakes = {
        "Every negative weight became zero: compare absolute values.": (
            lambda w, tolerance: torch.where(w < tolerance, 0.0, w)
        ),
        "The large weights became smaller too: here they keep their value.": (
            lambda w, tolerance: w.sign() * (w.abs() - tolerance).clamp(min=0)
        ),
        "You kept the small weights and lost the large ones: turn the comparison round.": (
            lambda w, tolerance: torch.where(w.abs() >= tolerance, 0.0, w)
        ),
        "You returned where the weights are large; multiply the weight by that.": (
            lambda w, tolerance: w.abs() >= tolerance
        ),
        "You set small weights to the tolerance; they are to be zero.": (
            lambda w, tolerance: torch.where(w.abs() < tolerance, tolerance, w)
        ),
        "A weight of exactly the tolerance is not below it: it stays.": (
            lambda w, tolerance: torch.where(w.abs() <= tolerance, 0.0, w)
        ),
    }
    at_the_edge = torch.tensor([-0.5, 0.25, 3.0])
    cases = [(uneven_weight(4, 3, 3, 3), 1e-3), (uneven_weight(6, 5, seed=3), 0.1), (at_the_edge, 0.5)]
    return Exercise(right, cases, mistakes)


@exercise
def check_feature_sums() -> Exercise:
    """1.1: `feature_sums(weight)`, for every input channel the sum of the l1 norms of its kernels, (I,)."""
    mistakes = {
        "You summed over the input channels: that is one number for each output channel, neuron-wise.": (
            lambda w: w.abs().flatten(2).sum(-1).sum(1)
        ),
        "Positive and negative weights cancelled: the l1 norm takes absolute values first.": (
            lambda w: w.flatten(2).sum(-1).sum(0)
        ),
        "The absolute value came after the sum, when the signs had cancelled already.": (
            lambda w: w.flatten(2).sum(-1).abs().sum(0)
        ),
        "You took the l2 norm of each kernel; wanted is the l1 norm, the sum of absolute values.": (
            lambda w: w.flatten(2).norm(dim=-1).sum(0)
        ),
        "You stopped at the kernels: their norms still have to be added up over one axis.": (
            lambda w: w.abs().flatten(2).sum(-1)
        ),
        "You averaged over the output channels; a group adds its kernels up.": (
            lambda w: w.abs().flatten(2).sum(-1).mean(0)
        ),
    }
    cases = [(uneven_weight(4, 3, 2, 2),), (uneven_weight(3, 3, 1, 3, seed=2),), (sparse_layer(),)]
    return Exercise(lambda w: kernel_norms(w, 1).sum(0), cases, mistakes)


@exercise
def check_drop_ignored_inputs() -> Exercise:
    """1.2: `drop_ignored_inputs(weight)`, the weight without its zero columns, and the rest's indices."""
    mistakes = {
        "You dropped output channels. A layer ignores an input channel when a column is zero, not a row.": (
            lambda w: (w[(w != 0).flatten(1).any(1)], (w != 0).flatten(1).any(1).nonzero().flatten())
        ),
        "A column whose weights add up to zero is not a zero column: 1 and -1 cancel.": (
            lambda w: _kept(w, w.sum((0, 2, 3)) != 0)
        ),
        "A channel went because one of its kernels is zero; all of them must be.": (
            lambda w: _kept(w, (w.abs().sum((2, 3)) != 0).all(0))
        ),
        "A channel went because one of its weights is zero; all of them must be.": (
            lambda w: _kept(w, (w != 0).transpose(0, 1).flatten(1).all(1))
        ),
        "You kept exactly the columns that were to go.": (
            lambda w: _kept(w, (w == 0).transpose(0, 1).flatten(1).all(1))
        ),
        "The weight is right; the second result is the kept channels' indices, such as tensor([0, 2]).": (
            lambda w: (w[:, (w != 0).any(0).any(-1).any(-1)], (w != 0).any(0).any(-1).any(-1))
        ),
    }
    cases = [(sparse_layer(),), (sparse_layer().flip(1),), (torch.ones(2, 3, 1, 1),)]

    def right(weight: Tensor) -> tuple[Tensor, Tensor]:
        return _kept(weight, kernel_norms(weight, 1).sum(0) != 0)

    return Exercise(right, cases, mistakes)


@exercise
def check_ignored_inputs() -> Exercise:
    """1.3: `ignored_inputs(layer)`, for any convolution: True for each input channel that it ignores."""

    def right(layer: nn.Module) -> Tensor:
        layout = Layout.of(layer)
        norms = kernel_norms(layer.weight, 1, layout).unflatten(0, (layout.conv_groups, -1))
        return norms.sum(1).flatten() == 0

    def no_groups(layer: nn.Module) -> Tensor:
        norms = kernel_norms(layer.weight, 1, Layout(1, Layout.of(layer).transposed))
        return norms.sum(0) == 0

    def no_transposition(layer: nn.Module) -> Tensor:
        if not Layout.of(layer).transposed:
            return right(layer)
        return layer.weight.abs().flatten(2).sum((0, 2)) == 0

    def neither(layer: nn.Module) -> Tensor:
        return layer.weight.abs().flatten(2).sum((0, 2)) == 0

    mistakes = {
        "Right for plain convolutions. Now the others: look at the table of shapes above the exercise.": (
            neither
        ),
        "With groups > 1 a row reads the channels of its own group only: split the rows by layer.groups.": (
            no_groups
        ),
        "A transposed convolution stores the input channels on the first axis, not on the second.": (
            no_transposition
        ),
        "You marked the channels that the layer does read.": (lambda layer: ~right(layer)),
    }
    cases = [
        (_sparse_module(nn.Conv2d(3, 4, 3), (1,)),),
        (_sparse_module(nn.Conv2d(6, 4, 3, groups=2), (0, 4)),),
        (_sparse_module(nn.Conv2d(4, 4, 3, groups=4), (2,)),),
        (_sparse_module(nn.ConvTranspose2d(3, 5, 2), (0,)),),
    ]
    return Exercise(right, cases, mistakes)
