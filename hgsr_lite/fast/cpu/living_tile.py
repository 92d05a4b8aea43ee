"""The innermost piece of the convolution over living kernels: a tile of outputs held in registers.

A tile is `positions` neighbouring outputs of one channel for `vectors * lanes()` images, eight vectors
at most. Each weight is read once a tile and multiplied into all of them, so that a multiply-add costs one
read of an input and nothing else. LLVM keeps the sums in registers only if it sees single vectors; that is
why they are written down here. On a processor with shorter vectors it splits them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

VECTORS = 8
"""Vectors of sums in a full tile: enough that no addition waits for the one before it."""
_MAY_FUSE = ("contract",)


@cache
def vector_bytes() -> int:
    """The length of a vector on this processor, at least 32."""
    return 64 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 32


def lanes(itemsize: int) -> int:
    """How many numbers of this size are in a vector."""
    return vector_bytes() // itemsize


class _Sums:
    """The instructions for one tile of sums: `positions` rows of `vectors` vectors."""

    def __init__(self, context: Any, builder: Any, dtype: types.Type, positions: int, vectors: int) -> None:
        self.builder, self.positions, self.vectors = builder, positions, vectors
        self.real = context.get_value_type(dtype)
        self.size = context.get_abi_sizeof(self.real)
        self.lanes = lanes(self.size)
        self.vector = ir.VectorType(self.real, self.lanes)

    def spread(self, number: Any) -> Any:
        """A vector that holds one number everywhere."""
        empty = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, empty, zeros)

    def places(self, address: Any, step: Any) -> list[Any]:
        """Pointers to all vectors of a tile whose positions lie `step` bytes apart."""
        pointers = []
        for position in range(self.positions):
            start = self.builder.add(address, self.builder.mul(step, step.type(position)))
            first = self.builder.inttoptr(start, self.vector.as_pointer())
            pointers += [self.builder.gep(first, [ir.IntType(64)(v)]) for v in range(self.vectors)]
        return pointers

    def load(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=self.size)

    def item(self, address: Any, index: Any, kind: Any) -> Any:
        """Number `index` of an array of `kind` that begins at an address."""
        return self.builder.load(self.builder.gep(self.builder.inttoptr(address, kind.as_pointer()), [index]))

    def multiply_in(self, sums: list[Any], weight: Any, pointers: list[Any]) -> None:
        for total, pointer in zip(sums, pointers, strict=True):
            product = self.builder.fmul(weight, self.load(pointer), flags=_MAY_FUSE)
            self.builder.store(self.builder.fadd(product, self.builder.load(total), flags=_MAY_FUSE), total)

    def clamp(self, values: Any, low: Any, high: Any) -> Any:
        """Values held between two bounds; NaN stays NaN, as in PyTorch."""
        below = self.builder.fcmp_ordered("<", values, low)
        values = self.builder.select(below, low, values)
        return self.builder.select(self.builder.fcmp_ordered(">", values, high), high, values)


def tile_of(positions: int, vectors: int) -> Callable:
    """The compiled tile of so many positions and vectors."""

    @intrinsic
    def add_living(typing_context, images, image_step, out, out_step, residual, job):
        """Write one tile: bias + residual + sum over living kernels, rows and columns, then the bounds.

        `images`, `out`, `residual` are addresses (`residual` 0: none), the steps bytes. `job` is three
        tuples: the first and last living kernel, row and column; the addresses of the living kernels'
        channels, of their weights, of the offsets in bytes of a kernel's rows and columns, the bytes of a
        channel, a kernel's width and size; bias and bounds.
        """

        def generate(context, builder, signature, arguments):
            images, image_step, out, out_step, residual, job = arguments
            part = _Sums(context, builder, signature.args[5][2].dtype, positions, vectors)
            whole = ir.IntType(64)
            reach, tables, numbers = (
                cgutils.unpack_tuple(builder, piece) for piece in cgutils.unpack_tuple(builder, job)
            )
            channels, weights, down, right, plane_bytes, width, size = tables
            bias, low, high = map(part.spread, numbers)
            sums = [cgutils.alloca_once_value(builder, bias) for _ in range(positions * vectors)]
            with cgutils.for_range_slice(builder, *reach[0:2], whole(1)) as (kernel, _):
                channel = part.item(channels, kernel, whole)
                plane = builder.add(images, builder.mul(channel, plane_bytes))
                mine = builder.add(weights, builder.mul(builder.mul(kernel, size), whole(part.size)))
                with cgutils.for_range_slice(builder, *reach[2:4], whole(1)) as (row, _):
                    line = builder.add(plane, part.item(down, row, whole))
                    beginning = builder.mul(row, width)
                    with cgutils.for_range_slice(builder, *reach[4:6], whole(1)) as (column, _):
                        place = builder.add(line, part.item(right, column, whole))
                        weight = part.item(mine, builder.add(beginning, column), part.real)
                        part.multiply_in(sums, part.spread(weight), part.places(place, image_step))
            with builder.if_then(builder.icmp_signed("!=", residual, whole(0))):
                for total, pointer in zip(sums, part.places(residual, out_step), strict=True):
                    builder.store(builder.fadd(builder.load(total), part.load(pointer)), total)
            for total, pointer in zip(sums, part.places(out, out_step), strict=True):
                builder.store(part.clamp(builder.load(total), low, high), pointer, align=part.size)
            return context.get_dummy_value()

        return types.void(images, image_step, out, out_step, residual, job), generate

    return add_living
