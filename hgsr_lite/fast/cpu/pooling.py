"""Pools over images that lie batch innermost, compiled for the CPU by numba."""

from __future__ import annotations

from numba import njit

from hgsr_lite.fast.first_use import explained


@explained
@njit(cache=True, nogil=True)
def max_pool(first, end, images, rows, columns, out):
    """Write channels `first` to `end` of `out`, `(channels, height, width, batch)`, as `images` is.

    `rows` and `columns` hold the (first, end) that each output sees. NaN wins, as in PyTorch.
    """
    for channel in range(first, end):
        for down in range(len(rows)):
            for right in range(len(columns)):
                found = out[channel, down, right]
                found[:] = images[channel, rows[down, 0], columns[right, 0]]
                for row in range(rows[down, 0], rows[down, 1]):
                    for column in range(columns[right, 0], columns[right, 1]):
                        seen = images[channel, row, column]
                        for n in range(found.size):
                            found[n] = found[n] if seen[n] <= found[n] or found[n] != found[n] else seen[n]


@explained
@njit(cache=True, nogil=True)
def mean_pool(first, end, images, rows, columns, out):
    """The mean of what each output sees; arguments as in `max_pool`."""
    for channel in range(first, end):
        for down in range(len(rows)):
            for right in range(len(columns)):
                found = out[channel, down, right]
                found[:] = 0
                for row in range(rows[down, 0], rows[down, 1]):
                    for column in range(columns[right, 0], columns[right, 1]):
                        seen = images[channel, row, column]
                        for n in range(found.size):
                            found[n] += seen[n]
                count = (rows[down, 1] - rows[down, 0]) * (columns[right, 1] - columns[right, 0])
                for n in range(found.size):
                    found[n] /= count
