"""The penalty's gradient for every layer in one call, compiled for the CPU by numba.

The plain version in `penalties` reads a weight about eight times and starts a dozen operators a
layer. Here one compiled loop walks over *blocks of groups*: a block's weights are read, their norms
and sums taken, and while they are still in the cache the gradient is added. Numba brings its own
compiler, so nothing has to be installed beside it.

A layer is a row of nine numbers (sizes, strides, span), so one kernel serves both
groupings, grouped and transposed convolutions and linear layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numba import config, prange
from torch import Tensor

from hgsr_lite.fast.cpu import extremes, tile
from hgsr_lite.fast.cpu import rows as row_loops
from hgsr_lite.fast.cpu.compiling import compiled, mark_of
from hgsr_lite.fast.cpu.extremes import is_extreme, serve_extreme
from hgsr_lite.fast.cpu.memory import row_of
from hgsr_lite.fast.cpu.rows import (
    FAST,
    add_row,
    add_to_groups,
    multiply_by_group,
    raise_to,
    row_norms,
)
from hgsr_lite.fast.known import DTYPES, EXPONENTS
from hgsr_lite.groups import Layout, kernel_stack
from hgsr_lite.penalties import Penalty
from hgsr_lite.table import PenaltySpec

# Weights in a block. Where a group lies in one piece, a block is so small that its weights are still in the
# cache when they are read again; where groups lie across one another, so large that long rows stream.
_BLOCK, _STREAMED_BLOCK = 1 << 15, 1 << 22
_CHUNK = 1 << 11  # kernels whose numbers stay in the nearest cache between two uses
_PARALLEL_FROM = 1 << 17  # weights: below this, waking a second thread costs more than it saves


def layer_rows(weights: list[Tensor], layouts: list[Layout], grouping: str) -> np.ndarray:
    """One row a layer: sizes and strides of `(convolution group, group, kernel, element)`, then the span.

    Strides and span (from the first element to the last) are counted in elements.
    """
    order = (0, 2, 1, 3) if grouping == "feature" else (0, 1, 2, 3)
    rows = []
    for weight, layout in zip(weights, layouts, strict=True):
        stack = kernel_stack(weight, layout).permute(order)
        span = 1 + sum((n - 1) * s for n, s in zip(weight.shape, weight.stride(), strict=True))
        rows.append([*stack.shape, *stack.stride(), span])
    return np.array(rows, dtype=np.int64)


def block_rows(layers: np.ndarray, threads: int) -> np.ndarray:
    """The work list: `(layer, convolution group, first group, end)`, an equal stretch for each thread.

    Empty blocks fill the stretches up.
    """
    share = math.ceil(layers[:, :4].prod(1).sum() / threads)
    blocks = []  # with their numbers of weights before them
    for index, (conv_groups, groups, kernels, elements, _, s_group, s_kernel, *_) in enumerate(
        layers.tolist()
    ):
        streamed = s_group < s_kernel
        most = min(_STREAMED_BLOCK, share) if streamed else _BLOCK
        pieces = math.ceil(groups * kernels * elements / most)
        whole = tile.KERNELS if streamed else 1  # groups side by side make up tiles
        step = whole * math.ceil(groups / pieces / whole)
        for conv_group in range(conv_groups):
            for first in range(0, groups, step):
                end = min(first + step, groups)
                blocks.append(((end - first) * kernels * elements, (index, conv_group, first, end)))
    stretches = _share_out(blocks, threads)
    longest = max(map(len, stretches))
    filled = [stretch + [(0, 0, 0, 0)] * (longest - len(stretch)) for stretch in stretches]
    return np.array(filled, dtype=np.int64).reshape(-1, 4)


def _share_out(blocks: list[tuple[int, tuple]], threads: int) -> list[list[tuple]]:
    """The largest block first, each to the thread that has least to do so far.

    >>> _share_out([(4, ("a",)), (3, ("b",)), (2, ("c",)), (2, ("d",))], threads=2)
    [[('a',), ('d',)], [('b',), ('c',)]]
    """
    stretches: list[list[tuple]] = [[] for _ in range(threads)]
    loads = [0] * threads
    for size, block in sorted(blocks, key=lambda sized: sized[0], reverse=True):
        thread = loads.index(min(loads))
        stretches[thread].append(block)
        loads[thread] += size
    return stretches


@dataclass(frozen=True, eq=False)
class CompiledWork:
    """Weights as the compiled loops see them: where they lie, their `layer_rows` and `block_rows`.

    It keeps the weights' memory alive, so an address is never that of something else. `sample` tells numba
    the dtype.
    """

    weights: list[Tensor]
    addresses: np.ndarray
    layers: np.ndarray
    blocks: np.ndarray
    sample: np.ndarray
    size: int

    def several_threads(self, least: int) -> bool:
        """Whether the work is worth more than one thread, and PyTorch has been given more than one."""
        return self.size >= least and torch.get_num_threads() > 1


def addresses_of(tensors: list[Tensor]) -> np.ndarray:
    """Where the first elements lie in memory."""
    return np.array([*map(Tensor.data_ptr, tensors)])


def compiled_work(weights: list[Tensor], layouts: list[Layout], grouping: str) -> CompiledWork | None:
    """The work on weights that the compiled loops can take, else None.

    They take CPU weights of one dtype in `DTYPES` whose kernels lie contiguously, one after the other in
    one of the two channel directions: convolutions, grouped and transposed ones, linear layers; not
    channels_last.
    """
    dtype = weights[0].dtype
    if dtype not in DTYPES or any(w.dtype != dtype or w.device.type != "cpu" for w in weights):
        return None
    rows = layer_rows(weights, layouts, grouping)
    _, _, _, elements, _, s_group, s_kernel, s_element, _ = rows.T
    adjacent = (np.minimum(s_group, s_kernel) == elements) & ((s_element == 1) | (elements == 1))
    if not adjacent.all():
        return None
    return CompiledWork(
        [weight.detach() for weight in weights],
        addresses_of(weights),
        rows,
        block_rows(rows, config.NUMBA_NUM_THREADS),
        np.zeros(1, DTYPES[dtype]),
        sum(weight.numel() for weight in weights),
    )


def _walk_of(mark: int) -> Callable:
    """The loop over the blocks. Numba's cache tells two compilations apart by what a function closes over."""

    def walk(weights, gradients, layers, blocks, norm, inner, outer, scale, l1_scale, sample, adds):
        """Add `scale * penalty' + l1_scale * sign` to the gradients if `adds`; return the term's value.

        Without `adds`, the value is NaN where only `serve_extreme` would give it. Rows and columns are
        kernels and groups, ordered so that the columns lie closest in memory.
        """
        values = np.zeros(len(blocks) + 0 * mark)
        for b in prange(len(blocks)):
            layer, conv_group, first, end = blocks[b]
            if first == end:
                continue
            _, _, kernels, elements, s_conv, s_group, s_kernel, _, _ = layers[layer]
            groups = end - first
            by_kernel = s_group < s_kernel or (kernels == 1 and s_group == elements)
            rows, columns = (kernels, groups) if by_kernel else (groups, kernels)
            stride = s_kernel if by_kernel else s_group
            start = conv_group * s_conv + first * s_group
            ahead = stride * sample.itemsize  # from a row to the next: what is fetched while one is worked on
            norms = np.empty((rows, columns), sample.dtype)
            many = min(rows, 1 + _CHUNK // columns)
            raised = np.empty((many, columns), sample.dtype)
            sums, slopes = np.zeros(groups), np.empty(groups)  # float64: a group may hold many kernels
            for top in range(0, rows, many):
                part = norms[top : top + many]
                for row in range(top, min(top + many, rows)):
                    weight = row_of(weights[layer], start + row * stride, columns, elements, sample)
                    row_norms(weight, norm, norms[row], ahead)
                raise_to(part.reshape(-1), inner, raised.reshape(-1))
                add_to_groups(raised[: len(part)], by_kernel, sums if by_kernel else sums[top:])
            if sample.itemsize == 4 and is_extreme(
                norms, norm, scale, weights[layer], start, stride, elements, sample
            ):
                values[b] = np.nan
                if adds:
                    values[b] = serve_extreme(
                        weights[layer], gradients[layer], start, stride, (rows, columns, elements), groups,
                        by_kernel, norm, inner, outer, scale, l1_scale, sample,
                    )  # fmt: skip
                continue
            raise_to(sums, outer, slopes)
            values[b] = scale * slopes.sum()
            if not adds:
                total = 0.0
                for row in range(rows if l1_scale != 0 else 0):
                    if norm != 1:
                        weight = row_of(weights[layer], start + row * stride, columns, elements, sample)
                        row_norms(weight, 1, norms[row], ahead)
                    for column in range(columns):
                        total += norms[row, column]
                values[b] += l1_scale * total
                continue
            raise_to(sums, outer - 1, slopes)
            slopes *= scale * outer * inner
            total = 0.0
            for top in range(0, rows, many):
                part = norms[top : top + many]
                raise_to(part.reshape(-1), inner - norm, raised.reshape(-1))
                multiply_by_group(raised[: len(part)], by_kernel, slopes if by_kernel else slopes[top:])
                for row in range(top, min(top + many, rows)):
                    weight = row_of(weights[layer], start + row * stride, columns, elements, sample)
                    gradient = row_of(gradients[layer], start + row * stride, columns, elements, sample)
                    total += add_row(weight, gradient, raised[row - top], norm, l1_scale, ahead)
            values[b] += l1_scale * total
        return sample.dtype.type(values.sum())  # infinite where it is too large for the type

    return walk


@cache
def _compiled_walk(parallel: bool) -> Callable:
    walk = _walk_of(mark_of(row_loops, tile, extremes) + parallel)
    return compiled(walk, parallel=parallel, fastmath=FAST)


def knows(spec: PenaltySpec) -> bool:
    """Whether the loops have code for a row's exponents."""
    return {spec.inner, spec.inner - spec.norm, spec.outer, spec.outer - 1} <= EXPONENTS


def fused_gradient_(
    penalty: Penalty,
    work: CompiledWork,
    gradients: list[Tensor],
    strength: float,
    l1_strength: float = 0.0,
) -> Tensor:
    """Add `strength * penalty' + l1_strength * sign(w)` to the gradients in place; return that term's value.

    Each gradient has its weight's dtype and strides.

    >>> weight, gradient = torch.tensor([[1., -2.]]), torch.zeros(1, 2)
    >>> work = compiled_work([weight], [Layout()], "feature")
    >>> fused_gradient_(Penalty("es"), work, [gradient], 0.5)
    tensor(2.5000)
    >>> gradient
    tensor([[ 1., -2.]])
    """
    return _walked(penalty, work, addresses_of(gradients), strength, l1_strength, True)


def fused_value(penalty: Penalty, work: CompiledWork, strength: float, l1_strength: float = 0.0) -> Tensor:
    """The value that `fused_gradient_` returns, in half of its time.

    >>> work = compiled_work([torch.tensor([[1., -2.]])], [Layout()], "feature")
    >>> fused_value(Penalty("es"), work, 0.5)
    tensor(2.5000)
    """
    value = _walked(penalty, work, work.addresses, strength, l1_strength, False)
    if not value.isnan():
        return value
    thrown_away = [*map(torch.zeros_like, work.weights)]
    return fused_gradient_(penalty, work, thrown_away, strength, l1_strength)


def _walked(
    penalty: Penalty,
    work: CompiledWork,
    gradients: np.ndarray,
    strength: float,
    l1_strength: float,
    adds: bool,
) -> Tensor:
    spec = penalty.spec
    value = _compiled_walk(work.several_threads(_PARALLEL_FROM))(
        work.addresses, gradients, work.layers, work.blocks,
        spec.norm, spec.inner, spec.outer, strength, l1_strength, work.sample, adds,
    )  # fmt: skip
    return torch.scalar_tensor(value, dtype=work.weights[0].dtype)  # a third of the time of torch.tensor
