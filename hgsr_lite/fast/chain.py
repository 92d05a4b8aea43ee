"""Layers one after the other, described: `cpu.living_chain` prepares and runs them.

A small layer's work takes less time than it takes Python and PyTorch to call it. What is known before the
images come is prepared once for each shape.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from hgsr_lite.fast.living import LivingKernels, Window

if TYPE_CHECKING:
    from hgsr_lite.fast.cpu.living_chain import Chain


class Convolution(NamedTuple):
    """A convolution over living kernels with `channels` inputs, dead ones too, held between two bounds."""

    living: LivingKernels
    bias: Tensor
    window: Window
    channels: int
    low: float
    high: float


class Linear(NamedTuple):
    """A linear layer, held between two bounds; each number of an image is a channel of one pixel."""

    weight: Tensor
    bias: Tensor
    low: float
    high: float


class MaxPool(NamedTuple):
    """A max-pool: `(height, width)` each, and whether a window that begins inside counts."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    ceil: bool


class MeanPool(NamedTuple):
    """An adaptive average pool."""

    size: tuple[int, int]


class Link(NamedTuple):
    """A layer of a chain and what it reads: value 0 is what comes in, value n what the nth layer gives.

    `residual` is the value that a convolution adds, None if it adds none.
    """

    layer: Convolution | Linear | MaxPool | MeanPool
    source: int
    residual: int | None = None


@cache
def smallest_batch(dtype: torch.dtype) -> int:
    """How many images a chain takes at least: as many as a vector holds numbers."""
    from hgsr_lite.fast.cpu.living_tile import lanes

    return lanes(dtype.itemsize)


def prepare_chain(
    links: Sequence[Link], shape: torch.Size, dtype: torch.dtype, tile: int = sys.maxsize
) -> Chain:
    """A chain for images of one shape, `smallest_batch` of them at least: `run(images)` gives the last value.

    They go through all layers `tile` at a time. Raises `ValueError` for images that a layer cannot take. It
    holds on to the tensors of its layers, and shares work among as many threads as PyTorch has now.
    """
    # Numba takes a second to import: only those who run such a network pay for it.
    from hgsr_lite.fast.cpu.living_chain import Chain

    return Chain(links, shape, dtype, tile)
