"""Eight 3x3 kernels at a time: the one piece of the compiled gradient that LLVM is told how to vectorise.

Kernels of nine elements lie end to end, so a vector of eight weights holds parts of two kernels, and LLVM's
own answer to a loop over nine elements is half scalar. Here the patterns by which kernels' coefficients
spread over weights, and weights add up to kernels, are written down when the loop is compiled. Any
processor can run it: where its vectors are shorter, LLVM splits these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

ELEMENTS = 9
KERNELS = 8
"""Kernels in a tile, and weights in a vector: a tile is nine vectors."""
_CACHE_LINE = 64  # bytes
_INDEX = ir.IntType(64)
_MAY_FUSE = ("contract",)
_MAY_REORDER = ("contract", "reassoc")


class _Tile:
    """The instructions for one tile: a `builder`, and how its dtype is laid out."""

    def __init__(self, context: Any, builder: Any, dtype: types.Type) -> None:
        self.builder = builder
        self.real = context.get_value_type(dtype)
        self.vector = ir.VectorType(self.real, KERNELS)
        self.size = context.get_abi_sizeof(self.real)
        self.zero, self.one, self.minus_one = (
            ir.Constant(self.vector, [value] * KERNELS) for value in (0.0, 1.0, -1.0)
        )

    def at(self, address: Any, element: int) -> Any:
        """A pointer to eight numbers, from an address and a number of elements behind it."""
        start = self.builder.inttoptr(address, self.real.as_pointer())
        place = self.builder.gep(start, [ir.Constant(_INDEX, element)])
        return self.builder.bitcast(place, self.vector.as_pointer())

    def fetch_ahead(self, address: Any, ahead: Any, write: bool) -> None:
        """Ask for the memory of the tile that lies `ahead` bytes on, before its turn comes."""
        pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        prefetch = self.builder.module.declare_intrinsic("llvm.prefetch", [pointer], form)
        start = self.builder.inttoptr(self.builder.add(address, ahead), pointer)
        options = [ir.Constant(flag, value) for value in (int(write), 3, 1)]  # into every cache; data
        for line in range(0, ELEMENTS * KERNELS * self.size, _CACHE_LINE):
            self.builder.call(prefetch, [self.builder.gep(start, [ir.Constant(_INDEX, line)]), *options])

    def load(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=self.size)

    def store(self, values: Any, pointer: Any) -> None:
        self.builder.store(values, pointer, align=self.size)

    def shuffle(self, one: Any, other: Any, pattern: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), KERNELS), pattern)
        return self.builder.shuffle_vector(one, other, mask)

    def sign(self, values: Any) -> Any:
        above, below = (self.builder.fcmp_ordered(which, values, self.zero) for which in (">", "<"))
        return self.builder.select(above, self.one, self.builder.select(below, self.minus_one, self.zero))

    def magnitude(self, values: Any, norm: int) -> Any:
        """`|w|` for the l1 norm, `w * w` for the l2 norm."""
        if norm == 2:
            return self.builder.fmul(values, values, flags=_MAY_FUSE)
        negative = self.builder.fcmp_ordered("<", values, self.zero)
        return self.builder.select(negative, self.builder.fneg(values), values)

    def sums_of_eight(self, rows: list[Any]) -> Any:
        """Eight vectors to one that holds their sums: neighbours are added three times over."""
        while len(rows) > 1:
            pairs = [
                [self.shuffle(one, other, list(range(odd, 2 * KERNELS, 2))) for odd in (0, 1)]
                for one, other in zip(rows[::2], rows[1::2], strict=True)
            ]
            rows = [self.builder.fadd(*pair, flags=_MAY_REORDER) for pair in pairs]
        return rows[0]


def _tile_of_sums(norm: int) -> Callable:
    @intrinsic
    def sum_tile(typing_context, weights, sums, ahead, sample):
        """Write the sums of a tile's kernels; addresses, bytes to fetch ahead, an array of their dtype."""

        def generate(context, builder, signature, arguments):
            tile = _Tile(context, builder, signature.args[3].dtype)
            weights, sums, ahead = arguments[:3]
            tile.fetch_ahead(weights, ahead, write=False)
            rows = [tile.load(tile.at(weights, ELEMENTS * kernel)) for kernel in range(KERNELS)]
            total = tile.sums_of_eight([tile.magnitude(row, norm) for row in rows])
            # Kernel k's ninth element is number k of the eight that begin at element 8 k + 8.
            ninth = tile.zero
            for kernel in range(KERNELS):
                mine = ir.Constant(
                    ir.VectorType(ir.IntType(1), KERNELS), [int(lane == kernel) for lane in range(KERNELS)]
                )
                begins = tile.load(tile.at(weights, KERNELS * kernel + KERNELS))
                ninth = builder.select(mine, begins, ninth)
            total = builder.fadd(total, tile.magnitude(ninth, norm), flags=_MAY_REORDER)
            tile.store(total, tile.at(sums, 0))
            return context.get_dummy_value()

        return types.void(weights, sums, ahead, sample), generate

    return sum_tile


def _tile_of_gradients(norm: int) -> Callable:
    @intrinsic
    def add_tile(typing_context, weights, gradients, coefficients, ahead, sample):
        """Add `coefficient * sign(w)` (l1) or `coefficient * w` (l2) to a tile's gradients."""

        def generate(context, builder, signature, arguments):
            tile = _Tile(context, builder, signature.args[4].dtype)
            weights, gradients, coefficients, ahead = arguments[:4]
            tile.fetch_ahead(gradients, ahead, write=True)
            compact = tile.load(tile.at(coefficients, 0))
            for first in range(0, ELEMENTS * KERNELS, KERNELS):
                owners = [(first + lane) // ELEMENTS for lane in range(KERNELS)]
                coefficient = tile.shuffle(compact, compact, owners)
                direction = tile.load(tile.at(weights, first))
                direction = tile.sign(direction) if norm == 1 else direction
                target = tile.at(gradients, first)
                step = builder.fmul(coefficient, direction, flags=_MAY_FUSE)
                tile.store(builder.fadd(tile.load(target), step, flags=_MAY_FUSE), target)
            return context.get_dummy_value()

        return types.void(weights, gradients, coefficients, ahead, sample), generate

    return add_tile


sum_l1_tile, sum_l2_tile = _tile_of_sums(1), _tile_of_sums(2)
add_l1_tile, add_l2_tile = _tile_of_gradients(1), _tile_of_gradients(2)
