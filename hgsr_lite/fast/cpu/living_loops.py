"""From a layer to tiles of outputs: the loops around `living_tile_shapes`."""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from hgsr_lite.fast.cpu.living_tile import TOGETHER_VECTORS, VECTORS, vector_bytes
from hgsr_lite.fast.cpu.living_tile_shapes import (
    OUTPUTS,
    SLIDING,
    pool_window,
    product_tile,
    sliding_tile,
    sliding_tile_together,
    tile,
    tile_together,
)
from hgsr_lite.fast.cpu.memory import pointer

CONVOLUTION, LINEAR, MAX_POOL, MEAN_POOL = range(4)
LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            # Which kind, and the numbers of the values that it reads, adds and writes.
            "kind", "source", "residual", "target",
            # Images that come in and outputs: places of a channel, images.
            "channels", "height", "width", "batch", "out_height", "out_width",
            # Stretches of outputs that see the same, down and right: addresses of their tables, and lengths.
            "row_runs", "row_run_count", "column_runs", "column_run_count",
            # A convolution's alone: addresses of its living kernels and of offsets in bytes,
            "inputs", "weights", "starts", "bias", "down_offsets", "right_offsets",
            # bytes of a channel, numbers of a kernel and of its row, the window,
            "plane", "kernel_size", "kernel_width", "stride_down", "stride_right", "above", "left",
            # whether it slides by one, rows of outputs done for all channels, channels done together.
            "slides", "rows_at_once", "together",
        )
    ] + [("low", np.float64), ("high", np.float64)]
)  # fmt: skip
"""A layer for images of one shape, as the loops read it. `channels` are those of a pool, else a layer's
output channels. A linear layer has a kernel of as many numbers as an image."""
_BYTES = vector_bytes()


@njit
def _power_of_two(most):
    """The largest power of two that is not above a number."""
    found = 1
    while 2 * found <= most:
        found *= 2
    return found


@njit
def _strip(count, length, item, image, image_step, out, out_step, residual, channels, job):
    """Tiles over `count` runs of `length` numbers; the last ones overlap those before.

    Of `channels` output channels that read the same inputs.
    """
    lanes = _BYTES // item
    most = TOGETHER_VECTORS if channels > 1 else VECTORS
    vectors = _power_of_two(min(most, length // lanes))
    positions = _power_of_two(min(most // vectors, count))
    for begin in range(0, count, positions):
        position = min(begin, count - positions)
        for start in range(0, length, vectors * lanes):
            ahead = min(start, length - vectors * lanes) * item
            seen = image + position * image_step + ahead
            to = position * out_step + ahead
            added = residual + to if residual else 0
            if channels > 1:
                tile_together(positions, vectors, seen, image_step, out + to, out_step, added, job)
            else:
                tile(positions, vectors, seen, image_step, out + to, out_step, added, job)


@njit
def _rectangle(
    rows, columns, batch, item, image, row_step, column_step, out, out_row, out_column, residual, channels,
    job,
):  # fmt: skip
    """Outputs of so many rows and columns that all read the same part of their kernels."""
    if column_step == out_column:  # stride 1: a row's columns and images are one run
        _strip(rows, columns * batch, item, image, row_step, out, out_row, residual, channels, job)
        return
    if columns < rows:  # a border: tiles go down
        rows, columns = columns, rows
        row_step, column_step, out_row, out_column = column_step, row_step, out_column, out_row
    for row in range(rows):
        to = row * out_row
        _strip(
            columns, batch, item, image + row * row_step, column_step, out + to, out_column,
            residual + to if residual else 0, channels, job,
        )  # fmt: skip


@njit
def _sliding_rows(rows, columns, sizes, item, image, out, residual, channels, job):
    """Rows of outputs, two at least in each, of kernels that slide by one; inputs begin at `image`."""
    width, batch, stride_down, left = sizes
    lanes, one = _BYTES // item, batch * item
    most = TOGETHER_VECTORS if channels > 1 else VECTORS
    vectors = _power_of_two(min(most // min(4, _power_of_two(columns)), batch // lanes))
    positions = _power_of_two(min(most // vectors, columns))
    reach, tables, bounds, apart = job
    for row in range(rows):
        for begin in range(0, columns, positions):
            column = min(begin, columns - positions)
            seen = column - left
            inside = max(0, -seen), min(positions + SLIDING - 1, width - seen)
            own = (*reach, *inside), tables, bounds, apart
            for start in range(0, batch, vectors * lanes):
                ahead = min(start, batch - vectors * lanes) * item
                line = image + (row * stride_down * width + seen) * one + ahead
                to = (row * columns + column) * one + ahead
                added = residual + to if residual else 0
                if channels > 1:
                    sliding_tile_together(positions, vectors, line, one, out + to, one, added, own)
                else:
                    sliding_tile(positions, vectors, line, one, out + to, one, added, own)


@njit
def _table(address, rows, columns):
    """Whole numbers that lie at an address."""
    return carray(pointer(address), (rows, columns), np.int64)


@njit
def convolve(first, end, layer, images, out, residual, sample):
    """Write output channels `first` to `end` of a convolution, from address to address (`residual` 0: none).

    `sample` is an array of the images' dtype. Several channels are done at once where all read alike.
    """
    starts = _table(layer.starts, layer.channels + 1, 1)
    row_runs = _table(layer.row_runs, layer.row_run_count, 4)
    column_runs = _table(layer.column_runs, layer.column_run_count, 4)
    width, batch, out_height, out_width = layer.width, layer.batch, layer.out_height, layer.out_width
    stride_down, stride_right, above, left = layer.stride_down, layer.stride_right, layer.above, layer.left
    tables = (
        layer.inputs, layer.weights, layer.down_offsets, layer.right_offsets, layer.plane,
        layer.kernel_width, layer.kernel_size,
    )  # fmt: skip
    item = sample.itemsize
    one = batch * item
    bounds = (sample.dtype.type(layer.low), sample.dtype.type(layer.high))
    outputs_apart = out_height * out_width * one
    for top in range(0, out_height, layer.rows_at_once):
        bottom = min(top + layer.rows_at_once, out_height)
        channel = first
        while channel < end:
            channels = layer.together if channel + layer.together <= end else 1
            kernels = (starts[channel, 0], starts[channel + 1, 0])
            weights_apart = (kernels[1] - kernels[0]) * layer.kernel_size * item
            apart = (layer.bias + channel * item, weights_apart, outputs_apart)
            for down in range(len(row_runs)):
                begin, last = max(row_runs[down, 0], top), min(row_runs[down, 1], bottom)
                if begin >= last:
                    continue
                reach = (*kernels, row_runs[down, 2], row_runs[down, 3])
                if layer.slides:
                    to = (channel * out_height + begin) * out_width * one
                    _sliding_rows(
                        last - begin, out_width, (width, batch, stride_down, left), item,
                        images + (begin * stride_down - above) * width * one, out + to,
                        residual + to if residual else 0, channels, (reach, tables, bounds, apart),
                    )  # fmt: skip
                    continue
                for right in range(len(column_runs)):
                    column, behind = column_runs[right, 0], column_runs[right, 1]
                    part = (*reach, column_runs[right, 2], column_runs[right, 3])
                    corner = (begin * stride_down - above) * width + column * stride_right - left
                    to = ((channel * out_height + begin) * out_width + column) * one
                    _rectangle(
                        last - begin, behind - column, batch, item,
                        images + corner * one, stride_down * width * one, stride_right * one,
                        out + to, out_width * one, one, residual + to if residual else 0, channels,
                        (part, tables, bounds, apart),
                    )  # fmt: skip
            channel += channels


@njit
def multiply(first, end, layer, images, out, sample):
    """Write outputs `first` to `end` of a linear layer, from address to address."""
    count, item = layer.kernel_size, sample.itemsize
    step, apart = layer.batch * item, layer.kernel_size * item
    bounds = (sample.dtype.type(layer.low), sample.dtype.type(layer.high))
    length = min(2, layer.batch * item // _BYTES) * _BYTES
    outputs = OUTPUTS if end - first >= OUTPUTS else 1
    for start in range(0, step, length):
        ahead = min(start, step - length)
        for begin in range(first, end, outputs):
            output = min(begin, end - outputs)
            product_tile(
                outputs, length // _BYTES, images + ahead, step, layer.weights + output * apart, apart,
                count, layer.bias + output * item, bounds, out + output * step + ahead,
            )  # fmt: skip


@njit
def pool(first, end, layer, images, out, sample):
    """Write channels `first` to `end` of a pool, from address to address."""
    rows = _table(layer.row_runs, layer.row_run_count, 2)
    columns = _table(layer.column_runs, layer.column_run_count, 2)
    height, width, batch = layer.height, layer.width, layer.batch
    lanes, one = _BYTES // sample.itemsize, batch * sample.itemsize
    vectors = _power_of_two(min(4, batch // lanes))
    for channel in range(first, end):
        for down in range(len(rows)):
            for right in range(len(columns)):
                corner = (channel * height + rows[down, 0]) * width + columns[right, 0]
                to = (channel * len(rows) + down) * len(columns) + right
                for start in range(0, batch, vectors * lanes):
                    ahead = min(start, batch - vectors * lanes) * sample.itemsize
                    pool_window(
                        layer.kind == MAX_POOL, vectors, images + corner * one + ahead, width * one, one,
                        rows[down, 1] - rows[down, 0], columns[right, 1] - columns[right, 0],
                        out + to * one + ahead, sample,
                    )  # fmt: skip
