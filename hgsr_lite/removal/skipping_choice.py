"""What pays: each layer, and the network for each number of images, timed once dense and once living."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from hgsr_lite.removal.proof import random_like
from hgsr_lite.removal.skipping_layers import LivingConvolution

TILES = (16, 32, 64, 128)
"""Images that go through the whole network together: few, and what lies between two layers stays in a
cache; many, and Python is called less often. The fastest is found by timing."""

FORMATS = (torch.contiguous_format, torch.channels_last)
"""The memory formats in which a dense network is tried."""

_ENOUGH = 0.5  # seconds of timing for one choice
_MARGIN = 1.05  # what is dense must be slower by this much before it is replaced


def choose_layer(layer: nn.Conv2d, shape: torch.Size) -> tuple[LivingConvolution | None, str]:
    """The living form of a layer where it pays, and why it is dense, if it is."""
    if bool((layer.weight != 0).flatten(2).any(-1).all()):
        return None, "no dead kernel"
    living = LivingConvolution(layer)
    dense = {count: _seconds_of(layer, living, count, shape) for count in (1, TILES[0])}
    slower = {count: times[1] * _MARGIN > times[0] for count, times in dense.items()}
    if all(slower.values()):
        return None, "faster"
    if not any(slower.values()):
        return living, ""
    only = "one image" if slower[1] else "many images"
    return LivingConvolution(layer, *slower.values()), f"faster, for {only} only"


def _seconds_of(dense: nn.Conv2d, living: nn.Module, count: int, shape: torch.Size) -> tuple[float, float]:
    """Seconds of one call of a layer, dense and living, on random images that lie as each wants them."""
    ordinary = torch.randn(count, *shape[1:], dtype=dense.weight.dtype)
    innermost = ordinary.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    return _interleaved([lambda: dense(ordinary), lambda: living(innermost)])


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

    So many together as `tile`; fewer than `dense_below` through the dense network, in `dense_format`.
    `dense_below` is None where even the largest batch that was timed is faster there.
    """

    tile: int
    dense_below: int | None
    dense_format: torch.memory_format


@torch.no_grad()
def choose_network(living: nn.Module, dense: fx.GraphModule, example: Tensor) -> Choice:
    """Time both with ever fewer images until dense is faster; what takes over half a second is left out."""
    tile, most = _best_tile(living, example)
    below, best = None, FORMATS[0]
    for count in [n for n in (128, 64, 32, 16, 8, 4, 2, 1) if n <= most]:
        images = random_like(example.new_empty(count, *example.shape[1:]))
        ordered = [images.contiguous(memory_format=order) for order in FORMATS]
        forms = [lambda each=each: dense(each) for each in ordered]
        seconds, *others = _interleaved([lambda images=images: _in_tiles(living, images, tile), *forms], 5)
        if seconds * _MARGIN > min(others):
            best = FORMATS[others.index(min(others))]
            break
        below = count
    return Choice(tile, below, best)


def _in_tiles(network: nn.Module, images: Tensor, tile: int) -> None:
    for part in images.split(tile):
        network(part)


def _best_tile(network: nn.Module, example: Tensor) -> tuple[int, int]:
    """The tile that takes least time an image, and the largest tried: none after one of half a second."""
    best, least, tile = TILES[0], float("inf"), TILES[0]
    for tile in TILES:
        images = random_like(example.new_empty(tile, *example.shape[1:]))
        (seconds,) = _interleaved([lambda images=images: network(images)], rounds=3)
        if seconds / tile < least:
            best, least = tile, seconds / tile
        if seconds > 0.5:
            break
    return best, tile


@torch.no_grad()
def best_format(dense: nn.Module, images: Tensor) -> torch.memory_format:
    """The memory format in which a dense network takes images fastest."""
    if images.ndim != 4:
        return FORMATS[0]
    ordered = [images.contiguous(memory_format=order) for order in FORMATS]
    seconds = _interleaved([lambda each=each: dense(each) for each in ordered], 5)
    return FORMATS[seconds.index(min(seconds))]
