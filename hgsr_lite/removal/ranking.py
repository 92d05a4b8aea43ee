"""Which channels matter least: the ways of choosing, each a value with the numbers that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hgsr_lite.arguments import check_count, check_flag, check_tolerance, choose
from hgsr_lite.coupling import CoupledChannels
from hgsr_lite.data import Data
from hgsr_lite.groups import GROUPINGS, Layout, kernel_stack
from hgsr_lite.removal.trials import long_work


@dataclass(frozen=True)
class Candidates:
    """What a way of choosing may look at: a network in eval mode, its removable channels, the images."""

    model: nn.Module
    sets: list[CoupledChannels]
    data: Data
    progress: bool = False


class Scoring(Protocol):
    """A way of choosing that gives every removable channel a score; the lowest go first."""

    def scores(self, candidates: Candidates) -> list[Tensor]:
        """A score for each channel of each set, in float64 on the CPU."""


@dataclass(frozen=True)
class Tolerance:
    """Weights below `tolerance` become zero, and the channels that die of it go; nothing is scored.

    `relative` measures them in units of each layer's root mean square, as `sparsity` does.

    >>> Tolerance(relative=True)
    Tolerance(tolerance=0.001, relative=True)
    """

    tolerance: float = 1e-3
    relative: bool = False

    def __post_init__(self) -> None:
        check_tolerance(self.tolerance)
        check_flag("relative", self.relative)


@dataclass(frozen=True)
class Norm:
    """The lowest root mean square of a channel's group: the columns that read it, or the rows that make it.

    Those are the groups of `"feature"` and `"neuron"`. With `relative`, in units of the root mean square of
    the whole layer.

    >>> Norm("neuron")
    Norm(grouping='neuron', relative=False)
    """

    grouping: str = "feature"
    relative: bool = False

    def __post_init__(self) -> None:
        choose("grouping", self.grouping, GROUPINGS)
        check_flag("relative", self.relative)

    def scores(self, candidates: Candidates) -> list[Tensor]:
        """See `Scoring.scores`."""
        return [self._root_mean_square(channels) for channels in candidates.sets]

    def _root_mean_square(self, channels: CoupledChannels) -> Tensor:
        reads = self.grouping == "feature"
        total, count = torch.zeros(2, channels.size, dtype=torch.float64)
        for part in channels.slices:
            if part.reads == reads and part.module.weight.ndim > 1:
                stack = kernel_stack(part.module.weight.detach(), Layout.of(part.module)).double().cpu()
                unit = stack.square().mean() if self.relative else 1.0
                squares = (stack.square() / unit).sum((1, 3) if reads else (2, 3)).flatten()
                total.index_add_(0, part.channel, squares[part.index])
                weights = torch.full_like(squares, stack.numel() / len(squares))
                count.index_add_(0, part.channel, weights[part.index])
        return (total / count).sqrt()


@dataclass(frozen=True)
class LossRise:
    """The lowest rise in cross-entropy when a channel alone is silenced, on random training images.

    Source: Mitsuno and Kurita, arXiv 2011.02389. One forward pass of `images` images for each channel.

    >>> LossRise(images=32)
    LossRise(images=32, seed=0)
    """

    images: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("images", self.images)

    @torch.no_grad()
    def scores(self, candidates: Candidates) -> list[Tensor]:
        """See `Scoring.scores`; a bar counts the channels once it takes some seconds."""
        images, labels = self._drawn(candidates.data)
        silenced: dict[nn.Module, Tensor] = {}

        def silence(module: nn.Module, inputs: tuple[Tensor, ...]):
            if module not in silenced:
                return None
            dim = -1 if isinstance(module, nn.Linear) else 1
            return (inputs[0].index_fill(dim, silenced[module].to(inputs[0].device), 0.0),)

        readers = {part.module for channels in candidates.sets for part in channels.readers}
        hooks = [module.register_forward_pre_hook(silence) for module in readers]
        total = sum(channels.size for channels in candidates.sets)
        try:
            before = cross_entropy(candidates.model(images), labels)
            scores = []
            with long_work("channels silenced", candidates.progress, total) as bar:
                for channels in candidates.sets:
                    rises = torch.zeros(channels.size, dtype=torch.float64)
                    for channel in range(channels.size):
                        silenced.clear()
                        silenced.update(
                            {part.module: part.index[part.channel == channel] for part in channels.readers}
                        )
                        rises[channel] = cross_entropy(candidates.model(images), labels) - before
                        bar.update()
                    scores.append(rises)
        finally:
            for hook in hooks:
                hook.remove()
        return scores

    def _drawn(self, data: Data) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(data.train), generator=generator)[: self.images]
        chosen = chosen.to(data.train.labels.device)
        return data.train.images[chosen], data.train.labels[chosen]


@dataclass(frozen=True)
class Random:
    """A random order: the control that every choice must beat.

    >>> Random(seed=1)
    Random(seed=1)
    """

    seed: int = 0

    def scores(self, candidates: Candidates) -> list[Tensor]:
        """See `Scoring.scores`."""
        generator = torch.Generator().manual_seed(self.seed)
        return [
            torch.rand(channels.size, generator=generator, dtype=torch.float64)
            for channels in candidates.sets
        ]


STRATEGIES: dict[str, type[Tolerance] | type[Scoring]] = {
    "tolerance": Tolerance,
    "norm": Norm,
    "loss": LossRise,
    "random": Random,
}
"""The short name of each way of choosing; it stands for the way as it is without further numbers."""
