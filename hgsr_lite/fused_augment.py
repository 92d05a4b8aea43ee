"""Crop and flip on the CPU, compiled by numba: each pixel is read once and written once."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

DTYPES = {torch.float32, torch.float64}
"""The dtypes that this loop takes; the others go the way of lookups."""


@njit(cache=True)
def fused_windows(
    images: np.ndarray,
    chosen: np.ndarray,
    offsets: np.ndarray,
    mirrored: np.ndarray,
    padding: int,
    result: np.ndarray,
) -> None:
    """Write the window at `offsets[n]` of the zero-padded `images[chosen[n]]` to `result[n]`."""
    count, channels, height, width = result.shape
    result[:] = 0
    for n in range(count):
        image, window = images[chosen[n]], result[n]
        down, right = offsets[n, 0] - padding, offsets[n, 1] - padding
        top, bottom = max(0, -down), min(height, height - down)  # rows and columns that are not padding
        first, end = max(0, -right), min(width, width - right)
        if mirrored[n]:
            for channel in range(channels):
                for row in range(top, bottom):
                    for column in range(first, end):
                        window[channel, row, width - 1 - column] = image[channel, row + down, column + right]
        else:
            for channel in range(channels):
                for row in range(top, bottom):
                    for column in range(first, end):
                        window[channel, row, column] = image[channel, row + down, column + right]


def takes(images: Tensor) -> bool:
    """Whether the compiled loop can read these images."""
    return images.device.type == "cpu" and images.dtype in DTYPES
