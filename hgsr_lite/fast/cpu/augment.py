"""Crop and flip on the CPU, compiled by numba: each pixel is read once and written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numba import prange
from torch import Tensor

from hgsr_lite.fast.cpu.compiling import compiled
from hgsr_lite.fast.known import DTYPES

_PARALLEL_FROM = 1 << 17  # pixels: below this, waking a second thread costs more than it saves


def fused_windows(
    images: np.ndarray,
    chosen: np.ndarray,
    offsets: np.ndarray,
    mirrored: np.ndarray,
    padding: int,
    result: np.ndarray,
) -> None:
    """Write the window at `offsets[n]` of the zero-padded `images[chosen[n]]` to `result[n]`."""
    several_threads = torch.get_num_threads() > 1 and result.size >= _PARALLEL_FROM
    _compiled_copy(several_threads)(images, chosen, offsets, mirrored, padding, result)


@cache
def _compiled_copy(parallel: bool) -> Callable:
    return compiled(_copy_of(parallel), parallel=parallel)


def _copy_of(parallel: bool) -> Callable:
    """The loop over images. Numba's cache tells two compilations apart by what a function closes over."""

    def copy(images, chosen, offsets, mirrored, padding, result):
        _, channels, height, width = result.shape
        for n in prange(len(chosen) + 0 * parallel):
            image, window = images[chosen[n]], result[n]
            window[:] = 0
            down, right = offsets[n, 0] - padding, offsets[n, 1] - padding
            top, bottom = max(0, -down), min(height, height - down)  # rows and columns that are not padding
            first, end = max(0, -right), min(width, width - right)
            if mirrored[n]:
                for channel in range(channels):
                    for row in range(top, bottom):
                        for column in range(first, end):
                            window[channel, row, width - 1 - column] = image[
                                channel, row + down, column + right
                            ]
            else:
                for channel in range(channels):
                    for row in range(top, bottom):
                        for column in range(first, end):
                            window[channel, row, column] = image[channel, row + down, column + right]

    return copy


def takes(images: Tensor) -> bool:
    """Whether the compiled loop can read these images, and no gradient has to flow back to them."""
    differentiable = images.requires_grad and torch.is_grad_enabled()
    return images.device.type == "cpu" and images.dtype in DTYPES and not differentiable
