"""Living kernels: what is left of a convolution whose kernels are mostly zero, and what it computes.

`plain_sparse_convolution` is the formula in ten lines of PyTorch; `cpu.sparse_convolution` is the same,
compiled. A dead kernel is never multiplied: where an image holds infinity or NaN, a dense convolution
gives NaN for zero times that, and these give what the living kernels say. A living kernel whose own weights
are not finite, at an image's border: the plain formula multiplies the zeros of the padding, which gives NaN,
the compiled one passes over them for as many images as a vector holds numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad


class Window(NamedTuple):
    """How a kernel moves over an image: `(height, width)` each; `padding` is (top, bottom, left, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what comes out.

        >>> Window((3, 3), (2, 2), (1, 1, 1, 1)).output_size(8, 9)
        (4, 5)
        """
        top, bottom, left, right = self.padding
        padded = (height + top + bottom, width + left + right)
        reach = [spread * (size - 1) for spread, size in zip(self.dilation, self.kernel, strict=True)]
        down, across = (
            (edge - far - 1) // step + 1 for edge, far, step in zip(padded, reach, self.stride, strict=True)
        )
        return down, across


def alive_kernels(weight: Tensor) -> Tensor:
    """Which kernels of a convolution's weight hold a weight that is not zero: (outputs, inputs) of truths.

    >>> alive_kernels(torch.tensor([[[[0.0]], [[2.0]]]]))
    tensor([[False,  True]])
    """
    return (weight != 0).flatten(2).any(-1)


class LivingKernels(NamedTuple):
    """The kernels of a layer that are not all zero, output channel by output channel.

    `weight` is (living kernels, height, width), `inputs` each one's input channel; those of output channel
    `o` are numbers `starts[o]` to `starts[o + 1]`.
    """

    weight: Tensor
    inputs: Tensor
    starts: Tensor

    @classmethod
    def of(cls, weight: Tensor, conv_groups: int = 1) -> LivingKernels:
        """The living kernels of a convolution's weight `(outputs, inputs of a conv group, height, width)`.

        >>> LivingKernels.of(torch.tensor([[[[0.0]], [[2.0]]], [[[0.0]], [[0.0]]]])).starts
        tensor([0, 1, 1])
        """
        alive = alive_kernels(weight)
        outputs, inputs = alive.nonzero(as_tuple=True)
        first = outputs // (len(weight) // conv_groups) * weight.shape[1]
        starts = torch.cat([alive.new_zeros(1, dtype=torch.int64), alive.sum(1).cumsum(0)])
        return cls(weight[alive].contiguous(), (inputs + first).contiguous(), starts)

    def outputs(self) -> Tensor:
        """Each living kernel's output channel."""
        counts = self.starts.diff()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)

    def shares(self, threads: int) -> np.ndarray:
        """First and last output channels of each thread, so that all have as many living kernels."""
        channels = len(self.starts) - 1
        work = self.starts.numpy() + np.arange(channels + 1)  # a channel without any still has a bias
        wanted = np.linspace(0, work[-1], threads + 1)
        return np.maximum.accumulate(np.searchsorted(work, wanted).clip(0, channels))


def batch_innermost(images: Tensor) -> Tensor:
    """The same images, those of a pixel side by side in memory: copied only where they do not lie so.

    >>> batch_innermost(torch.ones(5, 2, 3, 4)).stride()
    (1, 60, 20, 5)
    """
    count, channels, height, width = images.shape
    if images.permute(1, 2, 3, 0).is_contiguous():
        return images
    memory = images.new_empty(channels, height, width, count)
    # Two dimensions, because PyTorch transposes those by blocks.
    memory.view(-1, count).copy_(images.contiguous().flatten(1).t())
    return memory.permute(3, 0, 1, 2)


def empty_images(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Images not yet written, batch innermost, of the dtype and number of others."""
    count = like.shape[0]  # not `len`, which makes a symbol of an export one number
    return like.new_empty(channels, height, width, count).permute(3, 0, 1, 2)


def plain_sparse_convolution(
    images: Tensor, living: LivingKernels, bias: Tensor, window: Window, residual: Tensor | None = None,
    low: float = -math.inf, high: float = math.inf,
) -> Tensor:  # fmt: skip
    """`clamp(residual + bias + sum over living kernels, low, high)`, for any dtype and device.

    >>> living = LivingKernels.of(torch.tensor([[[[0.0]], [[3.0]]], [[[0.0]], [[0.0]]]]))
    >>> images = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    >>> plain_sparse_convolution(images, living, torch.tensor([0.5, 0.0]), Window((1, 1))).flatten()
    tensor([6.5000, 0.0000])
    """
    above, below, left, right = window.padding
    height, width = window.output_size(*images.shape[2:])
    padded = pad(images, (left, right, above, below))
    out = empty_images(images, len(bias), height, width).copy_(bias.view(-1, 1, 1))
    outputs = living.outputs()
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            top, first = row * window.dilation[0], column * window.dilation[1]
            seen = padded[:, living.inputs, top :: window.stride[0], first :: window.stride[1]]
            weight = living.weight[:, row, column].view(-1, 1, 1)
            out.index_add_(1, outputs, weight * seen[:, :, :height, :width])
    return (out if residual is None else out.add_(residual)).clamp_(low, high)
