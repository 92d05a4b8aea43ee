"""A convolution that multiplies by living kernels only, compiled for the CPU by numba.

Each output channel has a list of its living kernels; a dead one is neither stored nor read. Images lie
with the batch innermost, so that a weight meets a long run of numbers that need no shuffling: for every
output a tile of sums stays in registers while the list is walked (`living_tile`). Outputs whose kernels
reach over the border walk fewer rows or columns of them: nothing is padded.

A batch smaller than a vector is first copied into planes with zeros around them, in which a whole channel
is one run.

Idea: Park et al., *Faster CNNs with direct sparse convolutions and guided pruning*, ICLR 2017,
arXiv 1608.01409.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from hgsr_lite.fast.cpu.layout import batch_innermost, sample_of
from hgsr_lite.fast.cpu.living_layers import Prepared, layer_of
from hgsr_lite.fast.cpu.living_loops import CONVOLUTION
from hgsr_lite.fast.cpu.living_tile import lanes
from hgsr_lite.fast.cpu.living_tile_shapes import SLIDING, TOGETHER
from hgsr_lite.fast.living import LivingKernels, Window, empty_images

_CACHE_BYTES = 1 << 18  # what may be read between two rows of one output channel
PARALLEL_FROM = 1 << 22  # multiply-adds: below this, waking a second thread costs more than it saves


@lru_cache(maxsize=1024)
def runs(size: int, outputs: int, kernel: int, stride: int, before: int, dilation: int) -> np.ndarray:
    """Stretches of outputs that read the same part of a kernel: rows `(first, end, part's first, end)`.

    >>> runs(size=4, outputs=4, kernel=3, stride=1, before=1, dilation=1)
    array([[0, 1, 1, 3],
           [1, 3, 0, 3],
           [3, 4, 0, 2]])
    """
    start = np.arange(outputs) * stride - before
    first = np.clip(-(start // dilation), 0, kernel)
    end = np.maximum(first, np.clip((size - 1 - start) // dilation + 1, 0, kernel))
    changes = np.flatnonzero(np.diff(first) | np.diff(end)) + 1
    begins = np.concatenate([[0], changes])
    ends = np.concatenate([changes, [outputs]])
    return np.stack([begins, ends, first[begins], end[begins]], axis=1)


@dataclass(frozen=True, eq=False)
class _Plan:
    """What the loop needs besides addresses of tensors, for one layer and shape of images.

    `arrays` keeps alive what `layer` points at: offsets of a kernel's rows and columns, in bytes, and runs.
    """

    arrays: tuple[np.ndarray, ...]
    layer: np.ndarray

    @classmethod
    def of(
        cls, window: Window, offsets: tuple[np.ndarray, np.ndarray], plane: int, runs: tuple, **sizes: int
    ) -> _Plan:
        """`plane` is the bytes of an input channel."""
        tall, wide = window.kernel
        layer = layer_of(
            CONVOLUTION, *runs, plane=plane, kernel_width=wide, kernel_size=tall * wide,
            down_offsets=offsets[0].ctypes.data, right_offsets=offsets[1].ctypes.data, **sizes,
        )  # fmt: skip
        return cls((*offsets, *runs), layer)


@lru_cache(maxsize=4096)
def _plan_of_runs(
    window: Window, shape: torch.Size, item: int, outputs: int
) -> tuple[_Plan, tuple[int, ...]]:
    """A run: the images of one pixel, and of those beside it. Also the shape of what comes out."""
    batch, channels, height, width = shape
    down, right = window.output_size(height, width)
    above, _, left, _ = window.padding
    one = batch * item
    (tall, wide), (spread_down, spread_right) = window.kernel, window.dilation
    offsets = np.arange(tall) * (spread_down * width * one), np.arange(wide) * (spread_right * one)
    row_runs = runs(height, down, tall, window.stride[0], above, spread_down)
    column_runs = runs(width, right, wide, window.stride[1], left, spread_right)
    rows_at_once = max(1, min(down, 16, _CACHE_BYTES // (channels * width * one * window.stride[0])))
    plan = _Plan.of(
        window, offsets, height * width * one, (row_runs, column_runs), rows_at_once=rows_at_once,
        height=height, width=width, batch=batch, out_height=down, out_width=right,
        stride_down=window.stride[0], stride_right=window.stride[1], above=above, left=left,
        slides=wide == SLIDING and window.stride[1] == spread_right == 1 and right > 1,
    )  # fmt: skip
    return plan, (batch, outputs, down, right)


def sparse_convolution(
    images: Tensor, living: LivingKernels, bias: Tensor, window: Window, residual: Tensor | None = None,
    low: float = -math.inf, high: float = math.inf,
) -> Tensor:  # fmt: skip
    """`clamp(residual + bias + sum over living kernels, low, high)`, batch innermost.

    `images` is (batch, input channels, height, width) on the CPU, in float32 or float64 as are all others.

    >>> living = LivingKernels(torch.full((1, 1, 1), 3.0), torch.tensor([1]), torch.tensor([0, 0, 1]))
    >>> images = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    >>> sparse_convolution(images, living, torch.tensor([0.5, 0.0]), Window((1, 1))).flatten()
    tensor([0.5000, 6.0000])
    """
    shape, item = images.shape, images.element_size()
    if shape[0] == 0:
        return empty_images(images, bias.shape[0], *window.output_size(*shape[2:]))
    residual = None if residual is None else batch_innermost(residual)
    if shape[0] < lanes(item):
        return _convolve_planes(images, living, bias, window, residual, low, high)
    images = batch_innermost(images)
    prepared = prepare_convolution(shape, living, bias, window, low, high)
    out = empty_images(images, *prepared.shape[1:])
    added = 0 if residual is None else residual.data_ptr()
    prepared.run(np.array([images.data_ptr(), added, out.data_ptr()]), sample_of(bias.dtype))
    return out


def prepare_convolution(
    shape: torch.Size, living: LivingKernels, bias: Tensor, window: Window, low: float, high: float
) -> Prepared:
    """For a batch of `shape`, as many images as a vector holds numbers at least."""
    plan, out_shape = _plan_of_runs(window, shape, bias.element_size(), bias.shape[0])
    work = living.weight.numel() * math.prod(out_shape) // max(1, bias.shape[0])
    return _prepared(plan, out_shape, shape[1], living, bias, low, high, work)


def _prepared(
    plan: _Plan, out_shape: tuple[int, ...], channels: int, living: LivingKernels, bias: Tensor, low: float,
    high: float, work: int,
) -> Prepared:  # fmt: skip
    """Where all kernels live, all output channels read the same inputs, and several do so together."""
    layer, all_live = plan.layer.copy(), len(living.weight) == channels * bias.shape[0]
    for name, value in {
        "channels": bias.shape[0], "inputs": living.inputs.data_ptr(), "weights": living.weight.data_ptr(),
        "starts": living.starts.data_ptr(), "bias": bias.data_ptr(), "low": low, "high": high,
        "together": TOGETHER if all_live else 1,
    }.items():  # fmt: skip
        layer[name] = value
    threads = torch.get_num_threads()
    shares = (0, bias.shape[0]) if threads == 1 or work < PARALLEL_FROM else living.shares(threads)
    return Prepared(out_shape, layer, (plan, living, bias), shares, work)


@dataclass(frozen=True)
class _Planes:
    """How images are copied into planes: one for each place between two strides, zeros around."""

    plan: _Plan
    shape: tuple[int, ...]
    stored: int
    padding: tuple[int, int, int, int]
    size: tuple[int, int]


@lru_cache(maxsize=4096)
def _plan_of_planes(window: Window, shape: torch.Size, item: int) -> _Planes:
    """A run: a whole channel."""
    batch, channels, height, width = shape
    down, right = window.output_size(height, width)
    (tall, wide), (step_down, step_right) = window.kernel, window.stride
    rows, columns = np.arange(tall) * window.dilation[0], np.arange(wide) * window.dilation[1]
    plane_height, plane_width = int(down + rows[-1] // step_down), int(right + columns[-1] // step_right)
    plane = plane_height * plane_width * batch
    stored = max(((down - 1) * plane_width + right) * batch, lanes(item))
    offsets = (
        (rows % step_down * step_right * plane + rows // step_down * plane_width * batch) * item,
        (columns % step_right * plane + columns // step_right * batch) * item,
    )
    bytes_of_channel = step_down * step_right * plane * item
    whole = np.array([[0, 1, 0, tall]]), np.array([[0, 1, 0, wide]])
    plan = _Plan.of(
        window, offsets, bytes_of_channel, whole, rows_at_once=1, height=1, width=1, batch=stored,
        out_height=1, out_width=1, stride_down=1, stride_right=1,
    )  # fmt: skip
    above, _, left, _ = window.padding
    behind = plane_height * step_down - above - height, plane_width * step_right - left - width
    shape = (channels, step_down, step_right, plane_height, plane_width, batch)
    return _Planes(plan, shape, stored, (0, 0, left, behind[1], above, behind[0]), (down, right))


def _convolve_planes(images, living, bias, window, residual, low, high) -> Tensor:
    """For fewer images than a vector holds numbers."""
    planes = _plan_of_planes(window, images.shape, images.element_size())
    channels, step_down, step_right, plane_height, plane_width, batch = planes.shape
    padded = pad(images.permute(1, 2, 3, 0), planes.padding)
    memory = images.new_empty(math.prod(planes.shape) + planes.stored)
    memory[-planes.stored :] = 0
    memory[: -planes.stored].view(planes.shape).copy_(
        padded.view(channels, plane_height, step_down, plane_width, step_right, batch).permute(
            0, 2, 4, 1, 3, 5
        )
    )
    result = images.new_empty(bias.shape[0], planes.stored)
    bounds = (low, high) if residual is None else (-math.inf, math.inf)
    work = living.weight.numel() * planes.stored
    prepared = _prepared(planes.plan, (), channels, living, bias, *bounds, work)
    prepared.run(np.array([memory.data_ptr(), 0, result.data_ptr()]), sample_of(bias.dtype))
    strides = (1, planes.stored, plane_width * batch, batch)
    found = result.as_strided((batch, bias.shape[0], *planes.size), strides)
    out = empty_images(images, bias.shape[0], *planes.size)
    return out.copy_(found) if residual is None else torch.add(found, residual, out=out).clamp_(low, high)
