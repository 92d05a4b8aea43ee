"""Pruning by magnitude or at random, the controls that know nothing of penalties; and holding the zeros."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hgsr_lite.arguments import check_share, choose
from hgsr_lite.groups import GROUPINGS, kernel_stack
from hgsr_lite.layers import weight_layers
from hgsr_lite.training import RANKINGS, UNITS

_SEED_SHIFT = 1_000_003


@torch.no_grad()
def zero_lowest_(
    model: nn.Module, share: float, unit: str = "weight", by: str = "magnitude", seed: int = 0
) -> None:
    """Set about `share` of the convolution weights to zero, in place, the lowest-ranked units first.

    A unit (a weight, a kernel, all kernels that read an input channel: `"feature"`, or that make an
    output channel: `"neuron"`) ranks over the whole network by its mean absolute value, or at random.
    Groups are measured in units of their layer's mean: a layer with many inputs has small weights
    throughout, and would lose nearly all of its channels. Each layer keeps its best unit.

    Raises `ValueError` for a share outside 0..1 and for a weight that is computed.

    >>> layer = nn.Conv2d(2, 1, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[[[0.5]], [[-0.1]]]])
    >>> zero_lowest_(layer, 0.5)
    >>> layer.weight.flatten().tolist()
    [0.5, 0.0]
    """
    share = check_share("share", share)
    choose("unit", unit, UNITS)
    choose("ranking", by, RANKINGS)
    # Not the seed itself: the same stream drew the weights, and the ranks would follow their signs.
    generator = torch.Generator().manual_seed(seed + _SEED_SHIFT)
    over = {"weight": (), "kernel": (3,), "feature": (1, 3), "neuron": (2, 3)}[unit]
    layers = weight_layers(model)
    stacks = [kernel_stack(layer.stored_weight("nothing was cut"), layer.layout) for layer in layers]
    ranks = []
    for stack in stacks:
        sizes = stack.abs() / (stack.abs().mean() if unit in GROUPINGS else 1.0)
        rank = sizes.mean(over, keepdim=True) if over else sizes
        if by == "random":
            rank = torch.rand(rank.shape, generator=generator).to(stack.device)
        rank.view(-1)[rank.argmax()] = math.inf
        ranks.append(rank.expand_as(stack))
    every = torch.cat([rank.flatten() for rank in ranks])
    limit = every.sort().values[min(round(share * len(every)), len(every) - 1)]
    for stack, rank in zip(stacks, ranks, strict=True):
        stack[rank < limit] = 0.0


class _Mask:
    """A hook that keeps a gradient where a weight may move."""

    repeats_itself = True  # so that passes may be recorded: it does the same in every step

    def __init__(self, moves: Tensor) -> None:
        self.moves = moves

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient * self.moves


@contextmanager
def held_zeros(model: nn.Module) -> Iterator[None]:
    """While it lasts, convolution weights that are exactly zero when it begins stay zero in training.

    Their gradients are masked; weight decay and fresh momentum leave a zero where it is. Raises `ValueError`
    for a weight that is computed.

    >>> layer = nn.Conv2d(1, 2, 1, bias=False)
    >>> layer.weight.data[0] = 0.0
    >>> with held_zeros(layer):
    ...     layer(torch.ones(1, 1, 2, 2)).sum().backward()
    >>> layer.weight.grad.flatten().tolist()
    [0.0, 4.0]
    """
    weights = [layer.stored_weight("its zeros cannot be held") for layer in weight_layers(model)]
    hooks = [weight.register_hook(_Mask(weight.detach() != 0)) for weight in weights]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
