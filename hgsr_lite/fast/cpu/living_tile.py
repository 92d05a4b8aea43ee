"""The innermost piece of the convolution over living kernels: a tile of outputs held in registers.

A tile is `positions` neighbouring outputs of one channel for `vectors * lanes()` images, eight vectors
at most. Each weight is read once a tile and multiplied into all of them, so that a multiply-add costs one
read of an input and nothing else; where a kernel slides along a row by one pixel, neighbouring outputs
share their inputs, and a read serves several multiply-adds. So it does in a layer without a dead kernel,
where a tile takes several output channels together. LLVM keeps the sums in registers only if it
sees single vectors; that is why they are written down here. On a processor with shorter vectors it splits
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

VECTORS = 8
"""Vectors of sums in a full tile: enough that no addition waits for the one before it."""
TOGETHER_VECTORS = 4
"""Vectors of sums of each channel, in a tile of several output channels."""
_MAY_FUSE = ("contract",)
_WHOLE = ir.IntType(64)


@cache
def vector_bytes() -> int:
    """The length of a vector on this processor, at least 32."""
    return 64 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 32


def lanes(itemsize: int) -> int:
    """How many numbers of this size are in a vector."""
    return vector_bytes() // itemsize


def together() -> int:
    """How many output channels a tile takes where all read the same inputs: as many as registers allow."""
    return 4 if vector_bytes() == 64 else 2


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
        return [place for number in range(self.positions) for place in self.place(address, step, number)]

    def place(self, address: Any, step: Any, number: int) -> list[Any]:
        """Pointers to the vectors of one position."""
        start = self.builder.add(address, self.builder.mul(step, _WHOLE(number)))
        first = self.builder.inttoptr(start, self.vector.as_pointer())
        return [self.builder.gep(first, [_WHOLE(v)]) for v in range(self.vectors)]

    def load(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=self.size)

    def item(self, address: Any, index: Any, kind: Any) -> Any:
        """Number `index` of an array of `kind` that begins at an address."""
        return self.builder.load(self.builder.gep(self.builder.inttoptr(address, kind.as_pointer()), [index]))

    @contextmanager
    def rows(self, reach: list[Any], tables: list[Any]) -> Iterator[tuple[Any, Any]]:
        """Loop over living kernels and their rows: the addresses of a row's first input and weight."""
        channels, weights, down, _, plane_bytes, width, size = tables
        with cgutils.for_range_slice(self.builder, *reach[0:2], _WHOLE(1)) as (kernel, _):
            plane = self.builder.mul(self.item(channels, kernel, _WHOLE), plane_bytes)
            with cgutils.for_range_slice(self.builder, *reach[2:4], _WHOLE(1)) as (row, _):
                line = self.builder.add(plane, self.item(down, row, _WHOLE))
                first = self.builder.add(self.builder.mul(kernel, size), self.builder.mul(row, width))
                yield line, self.builder.add(weights, self.builder.mul(first, _WHOLE(self.size)))

    def add_product(self, total: Any, weight: Any, seen: Any) -> None:
        product = self.builder.fmul(weight, seen, flags=_MAY_FUSE)
        self.builder.store(self.builder.fadd(product, self.builder.load(total), flags=_MAY_FUSE), total)

    def multiply_from(self, number: int, sums: list[Any], weights: list[Any], inputs: list[Any]) -> None:
        """Multiply input `number` of a row by each weight that leads from it to an output of the tile."""
        for vector, seen in enumerate(inputs):
            for tap, weight in enumerate(weights):
                if 0 <= number - tap < self.positions:
                    self.add_product(sums[(number - tap) * self.vectors + vector], weight, seen)

    def pool_in(self, found: Any, seen: Any, is_max: bool) -> None:
        """The larger of two vectors of numbers, NaN above all, or their sum."""
        before = self.builder.load(found)
        if not is_max:
            self.builder.store(self.builder.fadd(before, seen), found)
            return
        stays = self.builder.or_(
            self.builder.fcmp_ordered("<=", seen, before), self.builder.fcmp_unordered("uno", before, before)
        )
        self.builder.store(self.builder.select(stays, before, seen), found)

    def begin(self, bias: Any) -> list[Any]:
        """The sums of a tile, which begin with the bias."""
        first = self.spread(bias)
        return [cgutils.alloca_once_value(self.builder, first) for _ in range(self.positions * self.vectors)]

    def finish(self, sums: list[Any], bounds: list[Any], out: Any, out_step: Any, residual: Any) -> None:
        """Write the sums, plus the residual if there is one, held between the bounds."""
        with self.builder.if_then(self.builder.icmp_signed("!=", residual, _WHOLE(0))):
            for total, pointer in zip(sums, self.places(residual, out_step), strict=True):
                self.builder.store(self.builder.fadd(self.builder.load(total), self.load(pointer)), total)
        low, high = map(self.spread, bounds)
        for total, pointer in zip(sums, self.places(out, out_step), strict=True):
            self.builder.store(self.clamp(self.builder.load(total), low, high), pointer, align=self.size)

    def clamp(self, values: Any, low: Any, high: Any) -> Any:
        """Values held between two bounds; NaN stays NaN, as in PyTorch."""
        below = self.builder.fcmp_ordered("<", values, low)
        values = self.builder.select(below, low, values)
        return self.builder.select(self.builder.fcmp_ordered(">", values, high), high, values)


def _unpacked(builder: Any, job: Any) -> list[list[Any]]:
    return [cgutils.unpack_tuple(builder, piece) for piece in cgutils.unpack_tuple(builder, job)]


def tile_of(positions: int, vectors: int, channels: int = 1) -> Callable:
    """The compiled tile of so many positions, vectors and output channels."""

    @intrinsic
    def add_living(typing_context, images, image_step, out, out_step, residual, job):
        """Write one tile: bias + residual + sum over living kernels, rows and columns, then the bounds.

        `images`, `out`, `residual` are addresses (`residual` 0: none), the steps bytes. `job` is four
        tuples: the first and last living kernel, row and column; the addresses of the living kernels'
        channels, of their weights, of the offsets in bytes of a kernel's rows and columns, the bytes of a
        channel, a kernel's width and size; the bounds; the address of the bias, and how many bytes the
        weights and the outputs of two output channels lie apart.
        """

        def generate(context, builder, signature, arguments):
            images, image_step, out, out_step, residual, job = arguments
            part = _Sums(context, builder, signature.args[5][2].dtype, positions, vectors)
            reach, tables, bounds, apart = _unpacked(builder, job)
            every = _Channels(part, channels, apart)
            with part.rows(reach, tables) as (line, weights):
                line = builder.add(images, line)
                with cgutils.for_range_slice(builder, *reach[4:6], _WHOLE(1)) as (column, _):
                    place = builder.add(line, part.item(tables[3], column, _WHOLE))
                    seen = [part.load(pointer) for pointer in part.places(place, image_step)]
                    for sums, first in every.with_weights(weights):
                        weight = part.spread(part.item(first, column, part.real))
                        for total, each in zip(sums, seen, strict=True):
                            part.add_product(total, weight, each)
            every.finish(bounds, out, out_step, residual)
            return context.get_dummy_value()

        return types.void(images, image_step, out, out_step, residual, job), generate

    return add_living


class _Channels:
    """The sums of the output channels of a tile."""

    def __init__(self, part: _Sums, count: int, apart: list[Any]) -> None:
        self.part, (bias, self.weights_apart, self.outputs_apart) = part, apart
        self.sums = [part.begin(part.item(bias, _WHOLE(number), part.real)) for number in range(count)]

    def with_weights(self, weights: Any) -> Iterator[tuple[list[Any], Any]]:
        """Each channel's sums, and the address of its weights; those of the first are at `weights`."""
        for number, sums in enumerate(self.sums):
            yield sums, self._moved(weights, self.weights_apart, number)

    def finish(self, bounds: list[Any], out: Any, out_step: Any, residual: Any) -> None:
        """Write all channels."""
        there = self.part.builder.icmp_signed("!=", residual, _WHOLE(0))
        for number, sums in enumerate(self.sums):
            added = self._moved(residual, self.outputs_apart, number)
            added = self.part.builder.select(there, added, _WHOLE(0))
            self.part.finish(sums, bounds, self._moved(out, self.outputs_apart, number), out_step, added)

    def _moved(self, address: Any, step: Any, number: int) -> Any:
        return self.part.builder.add(address, self.part.builder.mul(step, _WHOLE(number)))


def sliding_tile_of(positions: int, vectors: int, width: int, channels: int = 1) -> Callable:
    """The compiled tile for kernels of this width that move by one pixel: each input is read once a row."""
    inputs = positions + width - 1

    @intrinsic
    def add_living(typing_context, images, image_step, out, out_step, residual, job):
        """Write one tile of neighbours in a row; arguments as in `tile_of`, but for the last two of reach.

        They are the first and last of the tile's inputs that lie inside the image.
        """

        def generate(context, builder, signature, arguments):
            images, image_step, out, out_step, residual, job = arguments
            part = _Sums(context, builder, signature.args[5][2].dtype, positions, vectors)
            reach, tables, bounds, apart = _unpacked(builder, job)
            every = _Channels(part, channels, apart)
            first, last = reach[4:6]

            def is_inside(number):
                after = builder.icmp_signed("<=", first, _WHOLE(number))
                return builder.and_(after, builder.icmp_signed(">", last, _WHOLE(number)))

            def row_of(address):
                return [part.spread(part.item(address, _WHOLE(tap), part.real)) for tap in range(width)]

            inside = [is_inside(number) for number in range(inputs)]
            with builder.if_else(builder.and_(inside[0], inside[-1])) as ways:
                for way, asked in zip(ways, (False, True), strict=True):
                    with way, part.rows(reach, tables) as (line, weights):
                        rows = [(sums, row_of(address)) for sums, address in every.with_weights(weights)]
                        line = builder.add(images, line)
                        for number in range(inputs):
                            with builder.if_then(inside[number]) if asked else nullcontext():
                                seen = [part.load(place) for place in part.place(line, image_step, number)]
                                for sums, row in rows:
                                    part.multiply_from(number, sums, row, seen)
            every.finish(bounds, out, out_step, residual)
            return context.get_dummy_value()

        return types.void(images, image_step, out, out_step, residual, job), generate

    return add_living


def product_tile_of(outputs: int, vectors: int) -> Callable:
    """The compiled tile of a matrix product: so many outputs for so many vectors of images."""

    @intrinsic
    def multiply(typing_context, images, step, weights, apart, count, bias, bounds, out, out_step):
        """Write one tile: bias + sum over `count` numbers of an image, then the bounds.

        Addresses, and steps in bytes: `step` from a number of the images to the next, `apart` from the
        weights of one output to those of the next.
        """

        def generate(context, builder, signature, arguments):
            images, step, weights, apart, count, bias, bounds, out, out_step = arguments
            part = _Sums(context, builder, signature.args[6].dtype, outputs, vectors)
            first = [part.spread(part.item(bias, _WHOLE(number), part.real)) for number in range(outputs)]
            sums = [cgutils.alloca_once_value(builder, each) for each in first for _ in range(vectors)]
            rows = [builder.add(weights, builder.mul(apart, _WHOLE(number))) for number in range(outputs)]
            with cgutils.for_range_slice(builder, _WHOLE(0), count, _WHOLE(1)) as (number, _):
                line = builder.add(images, builder.mul(number, step))
                seen = [part.load(pointer) for pointer in part.place(line, _WHOLE(0), 0)]
                for output, row in enumerate(rows):
                    weight = part.spread(part.item(row, number, part.real))
                    for total, each in zip(sums[output * vectors :], seen, strict=False):
                        part.add_product(total, weight, each)
            bounds = cgutils.unpack_tuple(builder, bounds)
            part.finish(sums, bounds, out, out_step, _WHOLE(0))
            return context.get_dummy_value()

        return types.void(images, step, weights, apart, count, bias, bounds, out, out_step), generate

    return multiply


def pool_tile_of(vectors: int, is_max: bool) -> Callable:
    """The compiled tile of a pool: one output of so many vectors of images."""

    @intrinsic
    def pool_window(typing_context, images, row_step, column_step, rows, columns, out, sample):
        """Write the largest or the mean of a window that begins at `images`; addresses, and steps in bytes.

        `sample` is an array of the images' dtype. NaN is larger than any number, as in PyTorch.
        """

        def generate(context, builder, signature, arguments):
            images, row_step, column_step, rows, columns, out, _ = arguments
            part = _Sums(context, builder, signature.args[6].dtype, 1, vectors)
            zeros = [part.spread(ir.Constant(part.real, 0))] * vectors
            first = [part.load(place) for place in part.places(images, _WHOLE(0))] if is_max else zeros
            found = [cgutils.alloca_once_value(builder, each) for each in first]
            with cgutils.for_range_slice(builder, _WHOLE(0), rows, _WHOLE(1)) as (row, _):
                line = builder.add(images, builder.mul(row, row_step))
                with cgutils.for_range_slice(builder, _WHOLE(0), columns, _WHOLE(1)) as (column, _):
                    place = builder.add(line, builder.mul(column, column_step))
                    for each, pointer in zip(found, part.places(place, _WHOLE(0)), strict=True):
                        part.pool_in(each, part.load(pointer), is_max)
            count = part.spread(builder.sitofp(builder.mul(rows, columns), part.real))
            for each, pointer in zip(found, part.places(out, _WHOLE(0)), strict=True):
                value = builder.load(each)
                part.builder.store(value if is_max else builder.fdiv(value, count), pointer, align=part.size)
            return context.get_dummy_value()

        return types.void(images, row_step, column_step, rows, columns, out, sample), generate

    return pool_window
