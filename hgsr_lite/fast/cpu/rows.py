"""What the compiled gradient does to one row of kernels, and to the norms of all rows; see `gradient`."""

from __future__ import annotations

import numpy as np
from numba import njit

from hgsr_lite.fast.cpu.tile import ELEMENTS, KERNELS, add_l1_tile, add_l2_tile, sum_l1_tile, sum_l2_tile

FAST = {"reassoc", "contract", "nsz", "arcp"}  # not "nnan": a NaN weight must stay visible

# Kernels of 3x3 go by tiles, those of one number by plain loops. Measured, for the others: short loops over a
# kernel's elements are fastest with their length left open, and with the sign as arithmetic: a branch on a
# random sign costs more than the rest.


@njit(fastmath=FAST)
def row_norms(weight, norm, norms, ahead):
    """Write the norms of one row's kernels, `(columns, elements)`; `ahead` bytes on lies the next row."""
    columns, elements = weight.shape
    if elements == 1:
        numbers = weight.reshape(-1)
        for column in range(columns):
            norms[column] = abs(numbers[column])
        return
    done = sum_tiles(weight, norms, norm, ahead) if elements == ELEMENTS else 0
    for column in range(done, columns):
        total = weight.dtype.type(0)
        if norm == 1:
            for element in range(elements):
                total += abs(weight[column, element])
        else:
            for element in range(elements):
                total += weight[column, element] * weight[column, element]
        norms[column] = total
    if norm == 2:
        for column in range(columns):
            norms[column] = np.sqrt(norms[column])


@njit(fastmath=FAST)
def sum_tiles(weight, sums, norm, ahead):
    """Take the sums of as many whole tiles as there are; return how many kernels that were."""
    tiles = weight.shape[0] // KERNELS
    at, to, kernels = weight.ctypes.data, sums.ctypes.data, KERNELS * weight.itemsize
    for tile in range(tiles):
        if norm == 1:
            sum_l1_tile(at + tile * ELEMENTS * kernels, to + tile * kernels, ahead, weight)
        else:
            sum_l2_tile(at + tile * ELEMENTS * kernels, to + tile * kernels, ahead, weight)
    return tiles * KERNELS


@njit(fastmath=FAST)
def add_row(weight, gradient, coefficients, norm, l1_scale, ahead):
    """Add one row's gradient; return its l1 norm where that is wanted."""
    columns, elements = weight.shape
    real = weight.dtype.type
    l1, total = real(l1_scale), real(0)
    if norm == 1:
        for column in range(columns):
            coefficients[column] += l1
    weights, gradients = weight.reshape(-1), gradient.reshape(-1)
    if elements == 1:
        done = add_numbers(weights, gradients, coefficients, norm)
    else:
        done = add_tiles(weight, gradient, coefficients, norm, ahead) if elements == ELEMENTS else 0
    if norm == 1:
        for column in range(done, columns):
            for element in range(elements):
                w = weight[column, element]
                gradient[column, element] += coefficients[column] * (real(w > 0) - real(w < 0))
    else:
        for column in range(done, columns):
            for element in range(elements):
                gradient[column, element] += coefficients[column] * weight[column, element]
    if l1 != 0:
        for at in range(weights.size):
            total += abs(weights[at])
        if norm != 1:
            for at in range(weights.size):
                gradients[at] += l1 * (real(weights[at] > 0) - real(weights[at] < 0))
    return total


@njit(fastmath=FAST)
def add_numbers(weights, gradients, coefficients, norm):
    """Add the gradient of kernels of one number; return how many that were."""
    real = weights.dtype.type
    if norm == 1:
        for at in range(weights.size):
            w = weights[at]
            gradients[at] += coefficients[at] * (real(w > 0) - real(w < 0))
    else:
        for at in range(weights.size):
            gradients[at] += coefficients[at] * weights[at]
    return weights.size


@njit(fastmath=FAST)
def add_tiles(weight, gradient, coefficients, norm, ahead):
    """Add the gradient of as many whole tiles as there are; return how many kernels that were."""
    tiles = weight.shape[0] // KERNELS
    at, to, by = weight.ctypes.data, gradient.ctypes.data, coefficients.ctypes.data
    kernels = KERNELS * weight.itemsize
    for tile in range(tiles):
        tile_at, tile_to = at + tile * ELEMENTS * kernels, to + tile * ELEMENTS * kernels
        if norm == 1:
            add_l1_tile(tile_at, tile_to, by + tile * kernels, ahead, weight)
        else:
            add_l2_tile(tile_at, tile_to, by + tile * kernels, ahead, weight)
    return tiles * KERNELS


@njit(fastmath=FAST)
def raise_to(base, exponent, raised):
    """`base ** exponent`, with 0 where that is infinite; one plain loop for each exponent there is."""
    zero, one = base.dtype.type(0), base.dtype.type(1)
    if exponent == 0.5:
        for at in range(base.size):
            raised[at] = np.sqrt(base[at])
    elif exponent == 1:
        for at in range(base.size):
            raised[at] = base[at]
    elif exponent == 2:
        for at in range(base.size):
            raised[at] = base[at] * base[at]
    elif exponent == 0:
        for at in range(base.size):
            raised[at] = one
    elif exponent == -0.5:
        for at in range(base.size):
            raised[at] = np.sqrt(base[at])
        for at in range(base.size):  # a loop of its own: together with the root it is not vectorised
            raised[at] = zero if raised[at] == zero else one / raised[at]
    else:
        for at in range(base.size):
            raised[at] = zero if base[at] == zero else one / base[at]


@njit(fastmath=FAST)
def add_to_groups(raised, by_kernel, sums):
    """Add numbers `(rows, columns)` to their groups: the columns, if rows go by kernel, else the rows."""
    rows, columns = raised.shape
    if by_kernel:
        for row in range(rows):
            for column in range(columns):
                sums[column] += raised[row, column]
    else:
        for row in range(rows):
            total = sums[row]
            for column in range(columns):
                total += raised[row, column]
            sums[row] = total


@njit(fastmath=FAST)
def multiply_by_group(raised, by_kernel, slopes):
    """Multiply numbers `(rows, columns)` by their group's slope; groups as in `add_to_groups`."""
    rows, columns = raised.shape
    real = raised.dtype.type
    if by_kernel:
        for row in range(rows):
            for column in range(columns):
                raised[row, column] *= real(slopes[column])
    else:
        for row in range(rows):
            slope = real(slopes[row])
            for column in range(columns):
                raised[row, column] *= slope
