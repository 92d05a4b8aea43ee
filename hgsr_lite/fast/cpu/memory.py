"""Weights' memory as compiled loops see it: an address, and the rows of kernels that begin behind it."""

from __future__ import annotations

from numba import carray, njit, types
from numba.extending import intrinsic


@intrinsic
def pointer(context, address):
    """Turn an integer address into a pointer that `carray` can see as an array."""

    def generate(cg_context, builder, signature, args):
        return builder.inttoptr(args[0], cg_context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@njit(inline="always")
def row_of(address, offset, columns, elements, sample):
    """The `(columns, elements)` piece of memory that one row of kernels fills."""
    return carray(pointer(address + offset * sample.itemsize), (columns, elements), sample.dtype)
