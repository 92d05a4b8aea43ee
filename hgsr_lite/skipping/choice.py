"""What pays: each layer, and the network for each number of images, timed once dense and once living."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx, nn

from hgsr_lite.fast import (
    Link,
    MaxPool,
    alive_kernels,
    batch_innermost,
    called_directly,
    prepare_chain,
)
from hgsr_lite.removal import random_like
from hgsr_lite.skipping.layers import LivingConvolution, LivingLinear

TILES = (16, 32, 64, 128)
"""Images that go through the whole network together: few, and what lies between two layers stays in a
cache; many, and Python is called less often. The fastest is found by timing."""

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
"""The memory formats in which a dense network is tried."""

_ENOUGH = 0.5  # seconds of timing for one choice
_AS_LONG = 1.05  # times as long, and a clock cannot tell
_MARGIN = 1.05  # what is dense must be slower by this much before it is replaced


def formats_of(images: Tensor) -> dict[str, torch.memory_format]:
    """The formats that images can have: what is no batch of images has one only."""
    return FORMATS if images.ndim == 4 else {"contiguous": FORMATS["contiguous"]}


class DenseNetwork(nn.Module):
    """A copy of a dense network that takes its images, and keeps its weights, in one memory format."""

    def __init__(self, network: nn.Module, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        # Its name: torch.save cannot write a memory format.
        self._order = next(name for name, order in FORMATS.items() if order == memory_format)
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=memory_format)

    @property
    def memory_format(self) -> torch.memory_format:
        """The format, one of `FORMATS`."""
        return FORMATS[self._order]

    def forward(self, images: Tensor) -> Tensor:
        """What the network says about images."""
        return self.network(images.contiguous(memory_format=self.memory_format))


def compiled_for(network: nn.Module, images: Tensor) -> DenseNetwork:
    """A dense network under `torch.compile`, for as many images as these; raises what the compiler raises.

    As one graph: what is compiled in parts only would be timed as compiled, and be nearly as it was.
    """
    form = DenseNetwork(network, list(formats_of(images).values())[-1])
    form.network = torch.compile(form.network, fullgraph=True, dynamic=False)
    form(images)
    return form


def choose_layer(layer: nn.Conv2d, shape: torch.Size, is_first: bool) -> tuple[LivingConvolution | None, str]:
    """The living form of a layer where it pays, and why it is dense, if it is.

    A layer without a dead kernel may pay as well: its images need not be moved into another memory layout.
    `is_first` says that they come from outside, in PyTorch's own.
    """
    living = LivingConvolution(layer)
    seconds = {count: _seconds_of(layer, living, count, shape, is_first) for count in (1, TILES[0])}
    slower = {count: times[1] * _MARGIN > times[0] for count, times in seconds.items()}
    if all(slower.values()):
        return None, "no dead kernel" if has_no_dead_kernel(layer) else "faster"
    if not any(slower.values()):
        return living, ""
    only = "one image" if slower[1] else "many images"
    return LivingConvolution(layer, *slower.values()), f"faster, for {only} only"


def linear_pays(layer: nn.Linear) -> bool:
    """Whether a linear layer is faster as one more link of a chain, here of one that only copies images.

    Its images need not be moved into rows then, and Python calls one layer less.
    """
    images = batch_innermost(torch.randn(TILES[2], layer.in_features, 1, 1, dtype=layer.weight.dtype))
    links = [Link(MaxPool((1, 1), (1, 1), (0, 0), False), 0), Link(LivingLinear(layer).description(), 1)]
    short, long = (prepare_chain(each, images.shape, images.dtype) for each in (links[:1], links))
    dense, living = _interleaved([lambda: layer(short.run(images).flatten(1)), lambda: long.run(images)])
    return living * _MARGIN <= dense


def has_no_dead_kernel(layer: nn.Module) -> bool:
    """Whether every kernel of a layer lives."""
    return bool(alive_kernels(layer.weight).all())


def _seconds_of(
    dense: nn.Conv2d, living: nn.Module, count: int, shape: torch.Size, is_first: bool
) -> tuple[float, float]:
    """Seconds of one call of a layer, dense and living, between layers whose images lie batch innermost."""
    images = torch.randn(count, *shape[1:], dtype=dense.weight.dtype)
    images = images if is_first else batch_innermost(images)
    with called_directly(images):
        return _interleaved([lambda: batch_innermost(dense(images)), lambda: living(images)])


def _interleaved(calls: list[Callable[[], object]], rounds: int = 7) -> tuple[float, ...]:
    """The least seconds of each call over some rounds in turn, the first of which does not count.

    What takes longer than a clock's noise needs fewer rounds: after half a second the round is the last. The
    first, in which loops may be compiled, is not part of that half second.
    """
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
        if number == 0:
            begun = time.perf_counter()
        elif time.perf_counter() - begun > _ENOUGH:
            break
    return tuple(min(taken[1:]) for taken in times)


@dataclass(frozen=True)
class Choice:
    """How images go through a network without dead kernels.

    So many together as `tile`; fewer than `dense_below` through `dense`.
    `dense_below` is None where even the largest batch that was timed is faster there.
    """

    tile: int
    dense_below: int | None
    dense: DenseNetwork


@torch.no_grad()
def choose_network(living: nn.Module, graph: fx.GraphModule, example: Tensor) -> Choice:
    """Time both with ever fewer images until dense is faster; what takes over half a second is left out.

    `living` is a network with a `tile`, `graph` the dense one.
    """
    tile, most = _best_tile(living, example)
    forms = [DenseNetwork(graph, order) for order in FORMATS.values()]
    below, best = None, forms[0]
    for count in [n for n in (128, 64, 32, 16, 8, 4, 2, 1) if n <= most]:
        images = random_like(example.new_empty(count, *example.shape[1:]))
        calls = [partial(form, images) for form in forms]
        seconds, *others = _interleaved([partial(_in_tiles, living, images, tile), *calls], 5)
        if seconds * _MARGIN > min(others):
            best = forms[others.index(min(others))]
            break
        below = count
    return Choice(tile, below, best)


def _in_tiles(network: nn.Module, images: Tensor, tile: int) -> None:
    network.tile = tile
    network(images)


def _best_tile(network: nn.Module, example: Tensor) -> tuple[int, int]:
    """The tile in which most images take least time, and how many those are: half a second's at most.

    Of tiles that take as long the smallest: between two calls other work fills the caches.
    """
    few = random_like(example.new_empty(TILES[0], *example.shape[1:]))
    (seconds,) = _interleaved([lambda: _in_tiles(network, few, TILES[0])], rounds=3)
    tiles = [tile for tile in TILES if seconds * tile / TILES[0] <= _ENOUGH] or [TILES[0]]
    images = random_like(example.new_empty(tiles[-1], *example.shape[1:]))
    times = _interleaved([lambda tile=tile: _in_tiles(network, images, tile) for tile in tiles])
    return next(
        tile for tile, taken in zip(tiles, times, strict=True) if taken <= _AS_LONG * min(times)
    ), tiles[-1]


@torch.no_grad()
def dense_at_its_best(graph: fx.GraphModule, images: Tensor) -> DenseNetwork:
    """A dense network in the memory format in which it takes images fastest."""
    forms = [DenseNetwork(graph, order) for order in formats_of(images).values()]
    seconds = _interleaved([partial(form, images) for form in forms], 5)
    return forms[seconds.index(min(seconds))]
