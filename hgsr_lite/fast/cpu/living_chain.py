"""A chain of layers for images of one shape: what is known beforehand is prepared, the rest is addresses.

What lies between two layers lies in memory that each thread keeps.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import singledispatch
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from hgsr_lite.fast.chain import Convolution, Link, MaxPool, MeanPool
from hgsr_lite.fast.cpu.layout import batch_innermost
from hgsr_lite.fast.cpu.living_loops import compiled_pool
from hgsr_lite.fast.cpu.sparse_convolution import PreparedConvolution
from hgsr_lite.fast.operators import check_residual, output_size

_ALIGNED = 64  # bytes


class Prepared(Protocol):
    """A layer for images of one shape: the shape of what comes out, and a call from address to address."""

    shape: tuple[int, ...]

    def run(self, images: int, out: int, residual: int) -> None:
        """Read images and a residual (0: none), write what comes out."""


class PreparedPool(NamedTuple):
    """A pool of images of one shape; `rows` and `columns` hold the (first, end) that each output sees."""

    shape: tuple[int, ...]
    is_max: bool
    rows: np.ndarray
    columns: np.ndarray
    size: tuple[int, int, int]
    sample: np.ndarray

    @classmethod
    def of(
        cls, shape: torch.Size, dtype: torch.dtype, is_max: bool, rows: np.ndarray, columns: np.ndarray
    ) -> PreparedPool:
        """For images of `shape`."""
        batch, channels, height, width = shape
        out = (batch, channels, len(rows), len(columns))
        return cls(out, is_max, rows, columns, (height, width, batch), torch.empty(0, dtype=dtype).numpy())

    def run(self, images: int, out: int, residual: int) -> None:
        """Pool, from address to address."""
        channels, places = self.shape[1], (self.rows, self.columns)
        compiled_pool()(0, channels, images, out, self.is_max, *places, *self.size, self.sample)


@singledispatch
def prepare(layer: object, shape: torch.Size, dtype: torch.dtype, residual: torch.Size | None) -> Prepared:
    """A layer for images, and perhaps a residual, of one shape."""
    raise TypeError(f"a {type(layer).__name__} is no layer of a chain")


@prepare.register
def _(layer: Convolution, shape, dtype, residual) -> Prepared:
    living, bias, window, channels, *bounds = layer
    size = output_size(shape, dtype, living.weight.dtype, channels, window)
    if residual is not None:
        check_residual(residual, dtype, (shape[0], bias.shape[0], *size), living.weight.dtype)
    return PreparedConvolution.of(shape, living, bias, window, *bounds)


@prepare.register
def _(layer: MaxPool, shape, dtype, residual) -> Prepared:
    windows = [
        max_windows(side, *moves, layer.ceil)
        for side, *moves in zip(shape[2:], layer.kernel, layer.stride, layer.padding, strict=True)
    ]
    return PreparedPool.of(shape, dtype, True, *windows)


@prepare.register
def _(layer: MeanPool, shape, dtype, residual) -> Prepared:
    windows = [mean_windows(*sides) for sides in zip(shape[2:], layer.size, strict=True)]
    return PreparedPool.of(shape, dtype, False, *windows)


def max_windows(size: int, kernel: int, stride: int, padding: int, ceil: bool) -> np.ndarray:
    """The (first, end) pixels that each output of a max-pool sees.

    One that would begin behind the image and its padding is left out.

    >>> max_windows(5, kernel=3, stride=2, padding=1, ceil=False).tolist()
    [[0, 2], [1, 4], [3, 5]]
    """
    outputs = (size + 2 * padding - kernel + (stride - 1 if ceil else 0)) // stride + 1
    outputs -= ceil and (outputs - 1) * stride >= size + padding
    start = np.arange(outputs) * stride - padding
    return np.stack([np.clip(start, 0, size), np.clip(start + kernel, 0, size)], axis=1)


def mean_windows(size: int, outputs: int) -> np.ndarray:
    """The (first, end) pixels that each output of an adaptive average pool sees.

    >>> mean_windows(5, 2).tolist()
    [[0, 3], [2, 5]]
    """
    number = np.arange(outputs)
    return np.stack([number * size // outputs, -(-(number + 1) * size // outputs)], axis=1)


class Chain:
    """A chain prepared for images of one shape and dtype."""

    def __init__(self, links: Sequence[Link], shape: torch.Size, dtype: torch.dtype) -> None:
        self._links = tuple(links)  # what is prepared knows their tensors by address alone
        shapes, self._calls = [shape], []
        for link in links:
            added = None if link.residual is None else shapes[link.residual]
            prepared = prepare(link.layer, shapes[link.source], dtype, added)
            shapes.append(torch.Size(prepared.shape))
            self._calls.append((prepared.run, link.source, link.residual))
        sizes = [-(-math.prod(each) * dtype.itemsize // _ALIGNED) * _ALIGNED for each in shapes]
        self._offsets, self._bytes = _places(links, sizes)
        self._shape = shapes[-1]

    def run(self, images: Tensor) -> Tensor:
        """What the last layer gives, batch innermost, in memory of its own."""
        images = batch_innermost(images)
        batch, channels, height, width = self._shape
        out = images.new_empty(channels, height, width, batch)
        start = _memory.at_least(self._bytes)
        where = [images.data_ptr(), *(start + offset for offset in self._offsets), out.data_ptr()]
        for number, (run, source, residual) in enumerate(self._calls, 1):
            run(where[source], where[number], 0 if residual is None else where[residual])
        return out.permute(3, 0, 1, 2)


def _places(links: Sequence[Link], sizes: list[int]) -> tuple[list[int], int]:
    """Where each value between the first and the last lies, in bytes, and how many bytes all take.

    A place is free again once its value has been read for the last time.
    """
    last = {value: number for number, link in enumerate(links, 1) for value in link[1:] if value is not None}
    places: list[int] = []
    place_of: dict[int, int] = {}
    for value in range(1, len(links)):
        taken = {place for other, place in place_of.items() if last.get(other, 0) >= value}
        free = [place for place in range(len(places)) if place not in taken]
        place_of[value] = free[0] if free else len(places)
        places += [] if free else [0]
        places[place_of[value]] = max(places[place_of[value]], sizes[value])
    starts = [0, *np.cumsum(places).tolist()]
    return [starts[place_of[value]] for value in range(1, len(links))], starts[-1]


class _Memory(threading.local):
    """What a thread's chains have between their layers: memory fresh from the system costs a fault a page."""

    tensor: Tensor | None = None

    def at_least(self, size: int) -> int:
        """The address of so many bytes, whatever they hold."""
        if self.tensor is None or self.tensor.numel() < size + _ALIGNED:
            self.tensor = torch.empty(size + _ALIGNED, dtype=torch.uint8)
        return -(-self.tensor.data_ptr() // _ALIGNED) * _ALIGNED


_memory = _Memory()
