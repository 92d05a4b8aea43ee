"""Layers one after the other in one compiled call: a table of them, and where their values lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from hgsr_lite.fast.cpu import layout, living_loops, living_tile, living_tile_shapes, memory
from hgsr_lite.fast.cpu.compiling import compiled, mark_of
from hgsr_lite.fast.cpu.layout import copy_rows, turn
from hgsr_lite.fast.cpu.living_loops import CONVOLUTION, LAYER, LINEAR, convolve, multiply, pool
from hgsr_lite.fast.cpu.shares import run_shares

IN_PLACE, IMAGE_BY_IMAGE, BATCH_INNERMOST = range(3)
"""How images come: where the first layer reads them, or elsewhere, to be turned or copied."""


def layer_of(kind: int, *runs: np.ndarray, **fields: float) -> np.ndarray:
    """A table of one layer: it reads value 0, adds value 1, writes value 2.

    `runs` are the stretches of outputs, down and right; they must outlive it.
    """
    layer = np.zeros(1, LAYER)
    fields |= {"kind": kind, "residual": 1, "target": 2}
    for name, each in zip(("row_run", "column_run"), runs, strict=False):
        fields |= {f"{name}s": each.ctypes.data, f"{name}_count": len(each)}
    for name, value in fields.items():
        layer[name] = value
    return layer


class Prepared(NamedTuple):
    """A layer for images of one shape: the shape of what comes out, and what the loop reads.

    `layer` has addresses in what `keeps` holds; `shares` are the channels of each thread, `work` is the
    layer's multiply-adds.
    """

    shape: tuple[int, ...]
    layer: np.ndarray
    keeps: object
    shares: Sequence[int]
    work: int = 0

    def run(self, values: np.ndarray, sample: np.ndarray) -> None:
        """Compute the layer from and to the addresses `values`, of one part."""
        where = values, 0, 0, (IN_PLACE, 0, 0, 0, 0)
        run_shares(compiled_layers(), self.shares, (0, 1, self.layer, *where, sample))


def _run_of(mark: int) -> Callable:
    """The loop over layers. Numba's cache tells two compilations apart by what a function closes over."""

    def run(first, end, first_part, end_part, layers, values, images, out, sizes, sample):
        """Take parts `first_part` to `end_part` of the images through all layers, channels `first` to `end`.

        `layers` is an array of `LAYER`, `values` the address of each value that they read and write. `sizes`:
        how the images come; how many there are, and in a part; numbers of one as it comes and as it leaves.
        The last part overlaps the one before. What comes in one part stays where the last layer wrote it.
        """
        comes, count, size, numbers, numbers_out = sizes
        item = sample.itemsize + 0 * mark
        for part in range(first_part, end_part):
            begin = min(part * size, count - size)
            if comes == IMAGE_BY_IMAGE:
                turn(images + begin * numbers * item, values[0], size, numbers, sample)
            elif comes == BATCH_INNERMOST:
                copy_rows(images + begin * item, count * item, values[0], size * item, numbers, size, sample)
            for number in range(len(layers)):
                layer = layers[number]
                last = min(end, layer.channels)
                seen, to = values[layer.source], values[layer.target]
                if layer.kind == CONVOLUTION:
                    convolve(first, last, layer, seen, to, values[layer.residual], sample)
                elif layer.kind == LINEAR:
                    multiply(first, last, layer, seen, to, sample)
                else:
                    pool(first, last, layer, seen, to, sample)
            if size < count:
                last_value = values[layers[len(layers) - 1].target]
                copy_rows(
                    last_value, size * item, out + begin * item, count * item, numbers_out, size, sample
                )

    return run


@cache
def compiled_layers() -> Callable:
    """The loop over layers; it runs without Python's lock, so that threads can share channels or parts."""
    return compiled(
        _run_of(mark_of(layout, living_loops, living_tile, living_tile_shapes, memory)), nogil=True
    )
