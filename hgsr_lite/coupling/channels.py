"""Which slices of which layers are one channel, so that they can only go together.

A channel of a network is more than a row of one weight: the batch norm behind it, the columns of every layer
that reads it, and in a residual sum or a depthwise convolution the rows of other layers as well. `tracing`
follows forward passes, operation by operation; here the channels that met become sets with an index each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from hgsr_lite.coupling.blocks import NORMS, Block, Blocks, ConstantInputs
from hgsr_lite.coupling.tracing import Readings, Tracer

_UNREAD = "no layer reads it"
_NEVER_RUN = "the forward did not run it on the example"


@dataclass(frozen=True)
class Slice:
    """The part of one block that a set of channels owns: position `index[i]` is of channel `channel[i]`."""

    block: Block
    index: Tensor
    channel: Tensor

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.block.name

    @property
    def module(self) -> nn.Module:
        """The layer."""
        return self.block.module

    @property
    def reads(self) -> bool:
        """Whether these are the columns of a convolution or linear layer."""
        return self.block.side == "in"

    def positions(self, removed: Tensor) -> Tensor:
        """The positions of this layer that go when the channels marked in `removed` go."""
        return self.index[removed[self.channel]]


@dataclass(frozen=True)
class CoupledChannels:
    """All channels that start in the same layer. `fixed` says why none of them can go; "" if they can."""

    name: str
    size: int
    slices: tuple[Slice, ...]
    fixed: str

    @property
    def readers(self) -> list[Slice]:
        """The columns that read these channels."""
        return [part for part in self.slices if part.reads]


@dataclass(frozen=True)
class Coupling:
    """The coupled channels of a model, what its layers read whatever the image, and the norms behind them."""

    coupled: tuple[CoupledChannels, ...]
    constants: dict[nn.Module, ConstantInputs]
    norm_behind: dict[nn.Module, nn.Module]

    @property
    def free(self) -> list[CoupledChannels]:
        """Those whose channels can go."""
        return [channels for channels in self.coupled if not channels.fixed]


def couple(model: nn.Module, example_input: Tensor) -> Coupling:
    """Follow a model on the first image of an example and return its coupled channels.

    It is followed in eval mode, and again with the branches that run in training (an auxiliary head, say).
    What an image or another size might lead elsewhere is not seen: a forward that takes a number out of its
    images keeps all of its channels.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> [(part.name, part.block.side) for part in couple(net, torch.ones(1, 1, 8, 8)).free[0].slices]
    [('0', 'out'), ('2', 'in')]
    """
    blocks = Blocks(model)
    tracer = Tracer(blocks)
    with torch.no_grad(), _widened(model):
        with eval_branches(model):
            _follow(tracer, model, example_input[:1])
        with training_branches(model), suppress(Exception):  # the model's own: it may want targets
            _follow(tracer, model, example_input[:1])
    return Coupling(
        tuple(_coupled(blocks, tracer.readings)), tracer.readings.constants, _norms_behind(tracer.readings)
    )


def _follow(tracer: Tracer, model: nn.Module, images: Tensor) -> None:
    images = images.detach().double()
    tracer.enter(images)
    with tracer:
        out = model(images)
    tracer.leave(tensors(out))


@contextmanager
def _widened(model: nn.Module) -> Iterator[None]:
    """A context in which all weights are float64, and ask for gradients: so a linear layer is one product."""
    before = [
        (tensor, tensor.data, tensor.requires_grad)
        for tensor in itertools.chain(model.parameters(), model.buffers())
        if tensor.is_floating_point()
    ]
    for tensor, data, _ in before:
        tensor.data = data.double()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        yield
    finally:
        for tensor, data, wanted in before:
            tensor.data = data
            tensor.requires_grad_(wanted)


def _norms_behind(readings: Readings) -> dict[nn.Module, nn.Module]:
    """The batch norm that alone reads a layer, and reads nothing else."""
    only = {
        module: consumers[0] for module, consumers in readings.consumers.items() if len(set(consumers)) == 1
    }
    fed = [norm for consumers in readings.consumers.values() for norm in set(consumers)]
    return {module: norm for module, norm in only.items() if norm is not None and fed.count(norm) == 1}


@contextmanager
def _modes(model: nn.Module, training) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    for module in before:
        module.training = training(module)
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def eval_branches(model: nn.Module):
    """A context in which the model is in eval mode."""
    return _modes(model, lambda module: False)


def training_branches(model: nn.Module):
    """A context in which a forward takes its training branches, while each layer computes as in eval mode."""
    return _modes(model, lambda module: any(module.children()) and not isinstance(module, NORMS))


def tensors(output: object) -> list[Tensor]:
    """Every tensor in a model's output, be it one tensor, a tuple, a list or a dictionary.

    >>> len(tensors({"logits": torch.ones(1), "features": (torch.ones(1), None)}))
    2
    """
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [t for part in parts for t in tensors(part)] if isinstance(output, dict | list | tuple) else []


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without its full stop."""
    return (str(error).strip().splitlines() or [""])[0].rstrip(".")


def _coupled(blocks: Blocks, readings: Readings) -> Iterator[CoupledChannels]:
    component, reason = _components(blocks, readings.branches)
    block_of = np.repeat(np.arange(len(blocks.all)), [block.size for block in blocks.all])
    makes = np.array([block.side == "out" for block in blocks.all])[block_of]
    reads = np.array([block.side == "in" for block in blocks.all])[block_of]
    count = int(component.max(initial=-1)) + 1
    root = np.full(count, len(blocks.all))
    np.minimum.at(root, component[makes], block_of[makes])
    unread = ~np.isin(np.arange(count), component[reads])
    ran = [*(block.module in readings.constants for block in blocks.all), True]  # last: no layer makes it
    reason = [
        why or ("" if not unread[at] else _UNREAD if ran[root[at]] else _NEVER_RUN)
        for at, why in enumerate(reason)
    ]
    sets: dict[tuple[int, str], list[int]] = {}
    for at in range(count):
        if root[at] < len(blocks.all):
            sets.setdefault((int(root[at]), reason[at]), []).append(at)
    members = _members(component, count)
    for (first, why), components in sorted(sets.items()):
        yield _one_set(blocks, block_of, [members[at] for at in components], first, why)


def _members(component: np.ndarray, count: int) -> list[np.ndarray]:
    order = np.argsort(component, kind="stable")
    return np.split(order, np.cumsum(np.bincount(component, minlength=count))[:-1])


def _one_set(
    blocks: Blocks, block_of: np.ndarray, members: list[np.ndarray], first: int, why: str
) -> CoupledChannels:
    numbers = np.concatenate(members)
    channel = np.repeat(np.arange(len(members)), [len(some) for some in members])
    slices = []
    for at in np.unique(block_of[numbers]):
        inside = block_of[numbers] == at
        index = numbers[inside] - blocks.all[at].start
        order = np.argsort(index, kind="stable")
        slices.append(
            Slice(
                blocks.all[at],
                torch.from_numpy(index[order]).long(),
                torch.from_numpy(channel[inside][order]).long(),
            )
        )
    return CoupledChannels(blocks.all[first].name, len(members), tuple(slices), why)


def _components(blocks: Blocks, branches: bool) -> tuple[np.ndarray, list[str]]:
    """Of every channel number, the set it belongs to; of every set, why it stays ("" if it can go)."""
    empty = torch.empty(2, 0, dtype=torch.int32)
    pairs = torch.unique(torch.cat([empty, *blocks.pairs], 1), dim=1).long().numpy()
    low, high = pairs.min(0), pairs.max(0)
    plain = low >= 0
    graph = coo_array((np.ones(plain.sum()), (low[plain], high[plain])), shape=(blocks.count, blocks.count))
    count, component = connected_components(graph, directed=False)
    reason = [""] * count
    if branches:
        reason = ["the forward takes numbers out of its images, and may branch on them"] * count
    for number, pin in zip(high[(low < 0) & (high >= 0)], low[(low < 0) & (high >= 0)], strict=True):
        reason[component[number]] = reason[component[number]] or blocks.reasons[-1 - pin]
    return component, reason
