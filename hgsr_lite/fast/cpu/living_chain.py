"""A chain of layers for images of one shape: what is known beforehand is prepared, the rest is addresses.

What lies between two layers lies in memory that each thread keeps.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from hgsr_lite.fast.chain import Convolution, Linear, Link, MaxPool, MeanPool
from hgsr_lite.fast.cpu.layout import batch_innermost, sample_of
from hgsr_lite.fast.cpu.living_layers import (
    BATCH_INNERMOST,
    IMAGE_BY_IMAGE,
    IN_PLACE,
    Prepared,
    compiled_layers,
    layer_of,
)
from hgsr_lite.fast.cpu.living_loops import LINEAR, MAX_POOL, MEAN_POOL
from hgsr_lite.fast.cpu.living_tile import lanes
from hgsr_lite.fast.cpu.shares import run_shares
from hgsr_lite.fast.cpu.sparse_convolution import PARALLEL_FROM, prepare_convolution
from hgsr_lite.fast.living import Window
from hgsr_lite.fast.operators import check_residual, output_size

_ALIGNED = 64  # bytes
_EVERY = sys.maxsize  # channels: all there are


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
    return prepare_convolution(shape, living, bias, window, *bounds)


@prepare.register
def _(layer: Linear, shape, dtype, residual) -> Prepared:
    outputs, inputs = layer.weight.shape
    flat = torch.Size((shape[0], math.prod(shape[1:]), 1, 1))
    size = output_size(flat, dtype, layer.weight.dtype, inputs, Window((1, 1)))
    table = layer_of(
        LINEAR, channels=outputs, kernel_size=inputs, batch=shape[0], weights=layer.weight.data_ptr(),
        bias=layer.bias.data_ptr(), low=layer.low, high=layer.high,
    )  # fmt: skip
    return Prepared((shape[0], outputs, *size), table, layer, (0, outputs), shape[0] * outputs * inputs)


@prepare.register
def _(layer: MaxPool, shape, dtype, residual) -> Prepared:
    windows = [
        max_windows(side, *moves, layer.ceil)
        for side, *moves in zip(shape[2:], layer.kernel, layer.stride, layer.padding, strict=True)
    ]
    return _prepared_pool(MAX_POOL, shape, *windows)


@prepare.register
def _(layer: MeanPool, shape, dtype, residual) -> Prepared:
    windows = [mean_windows(*sides) for sides in zip(shape[2:], layer.size, strict=True)]
    return _prepared_pool(MEAN_POOL, shape, *windows)


def _prepared_pool(kind: int, shape: torch.Size, rows: np.ndarray, columns: np.ndarray) -> Prepared:
    """A pool of images of `shape`; `rows` and `columns` hold the (first, end) that each output sees."""
    batch, channels, height, width = shape
    layer = layer_of(kind, rows, columns, channels=channels, height=height, width=width, batch=batch)
    return Prepared((batch, channels, len(rows), len(columns)), layer, (rows, columns), (0, channels))


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
    """A chain prepared for images of one shape and dtype, which go through all layers `tile` at a time.

    Threads take parts of the images where there are enough, else channels of each layer.
    """

    def __init__(self, links: Sequence[Link], shape: torch.Size, dtype: torch.dtype, tile: int) -> None:
        self._count, *self._coming = shape
        self._sample, self._least = sample_of(dtype), lanes(dtype.itemsize)
        self._prepare(links, dtype, -(-self._count // tile))
        threads = torch.get_num_threads()
        if self._parts * sum(layer.work for layer in self._layers) < PARALLEL_FROM:
            threads = 1
        if self._parts < min(threads, self._count // self._least):
            self._prepare(links, dtype, min(threads, self._count // self._least))
        self._shares = np.linspace(0, self._parts, min(threads, self._parts) + 1).astype(int).tolist()

    def _prepare(self, links: Sequence[Link], dtype: torch.dtype, parts: int) -> None:
        """For so many parts of equal size; fewer where a part would not fill a vector."""
        self._size = max(self._least, -(-self._count // parts))
        self._parts = -(-self._count // self._size)
        shapes, self._layers = [torch.Size((self._size, *self._coming))], []
        for number, link in enumerate(links, 1):
            added = None if link.residual is None else shapes[link.residual]
            prepared = prepare(link.layer, shapes[link.source], dtype, added)
            prepared.layer["source"], prepared.layer["target"] = link.source, number
            prepared.layer["residual"] = -1 if added is None else link.residual
            self._layers.append(prepared)
            shapes.append(torch.Size(prepared.shape))
        self._table = np.concatenate([prepared.layer for prepared in self._layers])
        self._going = shapes[-1][1:]
        sizes = [-(-math.prod(each) * dtype.itemsize // _ALIGNED) * _ALIGNED for each in shapes]
        self._offsets, self._bytes = _places(links, sizes)

    def run(self, images: Tensor) -> Tensor:
        """What the last layer gives, batch innermost, in memory of its own."""
        comes, images = self._as_it_comes(images)
        out = images.new_empty(*self._going, self._count)
        sizes = comes, self._count, self._size, math.prod(self._coming), math.prod(self._going)
        arguments = images.data_ptr(), out.data_ptr(), sizes
        if self._parts > 1 or all(len(layer.shares) == 2 for layer in self._layers):
            run_shares(self._run_parts, self._shares, arguments)
        else:
            self._run_by_channels(*arguments)
        return out.permute(3, 0, 1, 2)

    def _as_it_comes(self, images: Tensor) -> tuple[int, Tensor]:
        if not images.permute(1, 2, 3, 0).is_contiguous():
            if math.prod(self._coming) >= lanes(images.element_size()):
                return IMAGE_BY_IMAGE, images.contiguous()
            images = batch_innermost(images)
        return (IN_PLACE if self._size == self._count else BATCH_INNERMOST), images

    def _values(self, comes: int, images: int, out: int) -> np.ndarray:
        """The address of each value of a part; the last of all is that of a residual that is none."""
        start = _memory.at_least(self._bytes)
        values = np.array([*(start + offset for offset in self._offsets), 0])
        if comes == IN_PLACE:
            values[0] = images
        if self._parts == 1:
            values[-2] = out
        return values

    def _run_parts(self, first: int, end: int, images: int, out: int, sizes: tuple[int, ...]) -> None:
        values = self._values(sizes[0], images, out)
        compiled_layers()(0, _EVERY, first, end, self._table, values, images, out, sizes, self._sample)

    def _run_by_channels(self, images: int, out: int, sizes: tuple[int, ...]) -> None:
        """The one part there is, its layers one after the other, each shared among threads."""
        values = self._values(sizes[0], images, out)
        compiled_layers()(0, 0, 0, 1, self._table[:0], values, images, out, sizes, self._sample)
        for layer in self._layers:
            layer.run(values, self._sample)


def _places(links: Sequence[Link], sizes: list[int]) -> tuple[list[int], int]:
    """Where each value lies, in bytes, and how many bytes all take.

    A place is free again once its value has been read for the last time.
    """
    last = {value: number for number, link in enumerate(links, 1) for value in link[1:] if value is not None}
    places: list[int] = []
    place_of: dict[int, int] = {}
    for value, size in enumerate(sizes):
        taken = {place for other, place in place_of.items() if last.get(other, 0) >= value}
        free = [place for place in range(len(places)) if place not in taken]
        place_of[value] = free[0] if free else len(places)
        places += [] if free else [0]
        places[place_of[value]] = max(places[place_of[value]], size)
    starts = [0, *np.cumsum(places).tolist()]
    return [starts[place_of[value]] for value in range(len(sizes))], starts[-1]


class _Memory(threading.local):
    """What a thread's chains have between their layers: memory fresh from the system costs a fault a page."""

    tensor: Tensor | None = None

    def at_least(self, size: int) -> int:
        """The address of so many bytes, whatever they hold."""
        if self.tensor is None or self.tensor.numel() < size + _ALIGNED:
            self.tensor = torch.empty(size + _ALIGNED, dtype=torch.uint8)
        return -(-self.tensor.data_ptr() // _ALIGNED) * _ALIGNED


_memory = _Memory()
