"""The tiles that are compiled, and which of them a shape takes."""

from __future__ import annotations

from numba import njit

from hgsr_lite.fast.cpu.living_tile import (
    pool_tile_of,
    product_tile_of,
    sliding_tile_of,
    tile_of,
    together,
)

SLIDING = 3
"""The width of kernels for which there are sliding tiles."""
_11, _12, _14, _18 = (tile_of(1, vectors) for vectors in (1, 2, 4, 8))
_21, _22, _24 = (tile_of(2, vectors) for vectors in (1, 2, 4))
_41, _42, _81 = tile_of(4, 1), tile_of(4, 2), tile_of(8, 1)
_s21, _s22, _s24 = (sliding_tile_of(2, vectors, SLIDING) for vectors in (1, 2, 4))
_s41, _s42, _s81 = (sliding_tile_of(*shape, SLIDING) for shape in ((4, 1), (4, 2), (8, 1)))
TOGETHER = together()
"""Output channels of a tile where every kernel lives."""
_t11, _t12, _t14 = (tile_of(1, vectors, TOGETHER) for vectors in (1, 2, 4))
_t21, _t22, _t41 = (tile_of(*shape, TOGETHER) for shape in ((2, 1), (2, 2), (4, 1)))
_ts21, _ts22, _ts41 = (sliding_tile_of(*shape, SLIDING, TOGETHER) for shape in ((2, 1), (2, 2), (4, 1)))
OUTPUTS = 2 * TOGETHER
"""Outputs of a tile of a matrix product."""
_p11, _p12 = (product_tile_of(1, vectors) for vectors in (1, 2))
_p81, _p82 = (product_tile_of(OUTPUTS, vectors) for vectors in (1, 2))
_max1, _max2, _max4 = (pool_tile_of(vectors, True) for vectors in (1, 2, 4))
_mean1, _mean2, _mean4 = (pool_tile_of(vectors, False) for vectors in (1, 2, 4))


# Inlined, like those below: a call with two dozen arguments takes as long as a tile of few living kernels.
@njit(forceinline=True)
def tile(positions, vectors, image, image_step, out, out_step, residual, job):
    """A tile of outputs of one channel; arguments as in `tile_of`."""
    shape = 10 * positions + vectors
    if shape == 18:
        _18(image, image_step, out, out_step, residual, job)
    elif shape == 42:
        _42(image, image_step, out, out_step, residual, job)
    elif shape == 24:
        _24(image, image_step, out, out_step, residual, job)
    elif shape == 81:
        _81(image, image_step, out, out_step, residual, job)
    elif shape == 14:
        _14(image, image_step, out, out_step, residual, job)
    elif shape == 22:
        _22(image, image_step, out, out_step, residual, job)
    elif shape == 41:
        _41(image, image_step, out, out_step, residual, job)
    elif shape == 12:
        _12(image, image_step, out, out_step, residual, job)
    elif shape == 21:
        _21(image, image_step, out, out_step, residual, job)
    else:
        _11(image, image_step, out, out_step, residual, job)


@njit(forceinline=True)
def sliding_tile(positions, vectors, image, image_step, out, out_step, residual, job):
    """The same where kernels slide by one pixel; see `sliding_tile_of`."""
    shape = 10 * positions + vectors
    if shape == 42:
        _s42(image, image_step, out, out_step, residual, job)
    elif shape == 81:
        _s81(image, image_step, out, out_step, residual, job)
    elif shape == 24:
        _s24(image, image_step, out, out_step, residual, job)
    elif shape == 41:
        _s41(image, image_step, out, out_step, residual, job)
    elif shape == 22:
        _s22(image, image_step, out, out_step, residual, job)
    else:
        _s21(image, image_step, out, out_step, residual, job)


@njit(forceinline=True)
def tile_together(positions, vectors, image, image_step, out, out_step, residual, job):
    """A tile of several channels that read the same inputs."""
    shape = 10 * positions + vectors
    if shape == 14:
        _t14(image, image_step, out, out_step, residual, job)
    elif shape == 22:
        _t22(image, image_step, out, out_step, residual, job)
    elif shape == 41:
        _t41(image, image_step, out, out_step, residual, job)
    elif shape == 12:
        _t12(image, image_step, out, out_step, residual, job)
    elif shape == 21:
        _t21(image, image_step, out, out_step, residual, job)
    else:
        _t11(image, image_step, out, out_step, residual, job)


@njit(forceinline=True)
def sliding_tile_together(positions, vectors, image, image_step, out, out_step, residual, job):
    """The same where kernels slide by one pixel."""
    shape = 10 * positions + vectors
    if shape == 41:
        _ts41(image, image_step, out, out_step, residual, job)
    elif shape == 22:
        _ts22(image, image_step, out, out_step, residual, job)
    else:
        _ts21(image, image_step, out, out_step, residual, job)


@njit(forceinline=True)
def product_tile(outputs, vectors, images, step, weights, apart, count, bias, bounds, out):
    """A tile of a matrix product; see `product_tile_of`."""
    if outputs > 1:
        if vectors == 2:
            _p82(images, step, weights, apart, count, bias, bounds, out, step)
        else:
            _p81(images, step, weights, apart, count, bias, bounds, out, step)
    elif vectors == 2:
        _p12(images, step, weights, apart, count, bias, bounds, out, step)
    else:
        _p11(images, step, weights, apart, count, bias, bounds, out, step)


@njit(forceinline=True)
def pool_window(is_max, vectors, image, row_step, column_step, rows, columns, out, sample):
    """A window of a pool, its largest or its mean; see `pool_tile_of`."""
    if is_max:
        if vectors == 4:
            _max4(image, row_step, column_step, rows, columns, out, sample)
        elif vectors == 2:
            _max2(image, row_step, column_step, rows, columns, out, sample)
        else:
            _max1(image, row_step, column_step, rows, columns, out, sample)
    elif vectors == 4:
        _mean4(image, row_step, column_step, rows, columns, out, sample)
    elif vectors == 2:
        _mean2(image, row_step, column_step, rows, columns, out, sample)
    else:
        _mean1(image, row_step, column_step, rows, columns, out, sample)
