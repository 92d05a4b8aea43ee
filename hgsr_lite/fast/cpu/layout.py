"""Images into the layout with the batch innermost: a transposition, in square blocks of one vector a row.

A block is read in whole lines of the cache, turned in registers, and written in whole lines. Number by
number, rows whose length is a multiple of 4 KB meet in one place of the cache and drive each other out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic
from torch import Tensor

from hgsr_lite.fast import living
from hgsr_lite.fast.cpu.compiling import compiled
from hgsr_lite.fast.cpu.living_tile import lanes, vector_bytes
from hgsr_lite.fast.cpu.memory import pointer

_BYTES = vector_bytes()
_WHOLE = ir.IntType(64)


def exchange(size: int, step: int) -> tuple[list[int], list[int]]:
    """Which numbers of two rows, laid end to end, each of the two takes as they swap blocks of `step`.

    >>> exchange(4, 1)
    ([0, 4, 2, 6], [1, 5, 3, 7])
    """
    upper = [place + size - step if place & step else place for place in range(size)]
    lower = [place + size if place & step else place + step for place in range(size)]
    return upper, lower


@intrinsic
def _turn_block(typing_context, images, image_step, out, out_step, sample):
    """Transpose a square block, from address to address; `sample` is an array of its dtype.

    Rows are `image_step` and `out_step` bytes apart. Rows 1 apart swap blocks of one number, rows 2 apart
    blocks of two, and so on: then the block is turned.
    """

    def generate(context, builder, signature, arguments):
        images, image_step, out, out_step, _ = arguments
        real = context.get_value_type(signature.args[4].dtype)
        align = context.get_abi_sizeof(real)
        size = lanes(align)
        vector = ir.VectorType(real, size)

        def row(start, step, number):
            place = builder.add(start, builder.mul(step, _WHOLE(number)))
            return builder.inttoptr(place, vector.as_pointer())

        def picked(first, second, places):
            mask = ir.Constant(ir.VectorType(ir.IntType(32), size), places)
            return builder.shuffle_vector(first, second, mask)

        rows = [builder.load(row(images, image_step, number), align=align) for number in range(size)]
        step = 1
        while step < size:
            for one in (number for number in range(size) if not number & step):
                pair = rows[one], rows[one + step]
                rows[one], rows[one + step] = (picked(*pair, places) for places in exchange(size, step))
            step *= 2
        for number, turned in enumerate(rows):
            builder.store(turned, row(out, out_step, number), align=align)
        return context.get_dummy_value()

    return types.void(images, image_step, out, out_step, sample), generate


@njit
def turn(images, out, count, size, sample):
    """Transpose `count` rows of `size` numbers; the last blocks overlap those before."""
    item = sample.itemsize
    side = _BYTES // item
    for start in range(0, size, side):
        pixel = min(start, size - side)
        for begin in range(0, count, side):
            image = min(begin, count - side)
            _turn_block(
                images + (image * size + pixel) * item, size * item,
                out + (pixel * count + image) * item, count * item, sample,
            )  # fmt: skip


@njit
def copy_rows(images, step, out, out_step, rows, length, sample):
    """Copy rows of `length` numbers that lie `step` and `out_step` bytes apart, from address to address."""
    for row in range(rows):
        seen = carray(pointer(images + row * step), (length,), sample.dtype)
        copied = carray(pointer(out + row * out_step), (length,), sample.dtype)
        for number in range(length):
            copied[number] = seen[number]


def _turn_alone(images, out, count, size, sample):
    turn(images, out, count, size, sample)


@cache
def _compiled_turn() -> Callable:
    return compiled(_turn_alone, nogil=True)


@cache
def sample_of(dtype: torch.dtype) -> np.ndarray:
    """An array by which a compiled loop knows the dtype of what lies at an address."""
    return torch.empty(0, dtype=dtype).numpy()


def batch_innermost(images: Tensor) -> Tensor:
    """What `living.batch_innermost` gives, for images on the CPU in the dtype of a convolution.

    Fewer images, or pixels, than a vector holds numbers are left to PyTorch.
    """
    count, channels, height, width = images.shape
    size, least = channels * height * width, lanes(images.element_size())
    lies_so = images.permute(1, 2, 3, 0).is_contiguous()
    if lies_so or count < least or size < least:
        return living.batch_innermost(images)
    images = images.contiguous()
    out = living.empty_images(images, channels, height, width)
    _compiled_turn()(images.data_ptr(), out.data_ptr(), count, size, sample_of(images.dtype))
    return out
