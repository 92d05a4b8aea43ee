"""Which channels matter least: a score for every removable channel, by norm, by loss or at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hgsr_lite.data import Data
from hgsr_lite.groups import Layout, kernel_stack
from hgsr_lite.removal.coupling import CoupledChannels


@dataclass(frozen=True)
class Ranking:
    """What a strategy may look at when it gives each channel a score; the lowest scores go first."""

    model: nn.Module
    sets: list[CoupledChannels]
    data: Data
    grouping: str
    relative: bool
    samples: int
    generator: torch.Generator


def norm_scores(ranking: Ranking) -> list[Tensor]:
    """The root mean square of each channel's group: the columns that read it, or the rows that make it.

    With `relative`, in units of the root mean square of the whole layer.
    """
    reads = ranking.grouping == "feature"
    return [_root_mean_square(channels, reads, ranking.relative) for channels in ranking.sets]


def _root_mean_square(channels: CoupledChannels, reads: bool, relative: bool) -> Tensor:
    total, count = (
        torch.zeros(channels.size, dtype=torch.float64),
        torch.zeros(channels.size, dtype=torch.float64),
    )
    for part in channels.slices:
        if part.reads == reads and part.module.weight.ndim > 1:
            stack = kernel_stack(part.module.weight.detach(), Layout.of(part.module)).double().cpu()
            unit = stack.square().mean() if relative else 1.0
            squares = (stack.square() / unit).sum((1, 3) if reads else (2, 3)).flatten()
            total.index_add_(0, part.channel, squares[part.index])
            weights = torch.full_like(squares, stack.numel() / len(squares))
            count.index_add_(0, part.channel, weights[part.index])
    return (total / count).sqrt()


@torch.no_grad()
def loss_scores(ranking: Ranking) -> list[Tensor]:
    """The rise in cross-entropy on random training images when a channel alone is silenced.

    Source: Mitsuno and Kurita, arXiv 2011.02389. One forward pass of `samples` images for each channel.
    """
    train = ranking.data.train
    chosen = torch.randperm(len(train), generator=ranking.generator)[: ranking.samples].to(
        train.labels.device
    )
    images, labels = train.images[chosen], train.labels[chosen]
    silenced: dict[nn.Module, Tensor] = {}

    def silence(module: nn.Module, inputs: tuple[Tensor, ...]):
        if module not in silenced:
            return None
        dim = -1 if isinstance(module, nn.Linear) else 1
        return (inputs[0].index_fill(dim, silenced[module].to(inputs[0].device), 0.0),)

    readers = {part.module for channels in ranking.sets for part in channels.readers}
    hooks = [module.register_forward_pre_hook(silence) for module in readers]
    try:
        before = cross_entropy(ranking.model(images), labels)
        scores = []
        for channels in ranking.sets:
            rises = torch.zeros(channels.size, dtype=torch.float64)
            for channel in range(channels.size):
                silenced.clear()
                silenced.update(
                    {part.module: part.index[part.channel == channel] for part in channels.readers}
                )
                rises[channel] = cross_entropy(ranking.model(images), labels) - before
            scores.append(rises)
    finally:
        for hook in hooks:
            hook.remove()
    return scores


def random_scores(ranking: Ranking) -> list[Tensor]:
    """A random order: the control that every choice must beat."""
    return [
        torch.rand(channels.size, generator=ranking.generator, dtype=torch.float64)
        for channels in ranking.sets
    ]


STRATEGIES: dict[str, Callable[[Ranking], list[Tensor]] | None] = {
    "tolerance": None,
    "norm": norm_scores,
    "loss": loss_scores,
    "random": random_scores,
}
"""How to choose -> the score of every channel. By tolerance nothing is scored: small weights become zero."""
