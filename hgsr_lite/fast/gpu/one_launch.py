"""The penalty's gradient for every layer in one launch on a GPU, compiled by Triton.

The plain version starts a dozen operators for every layer, `stacked` some twenty for all of them. Here a
program serves one group: it reads the group's kernels, and reads them again, from the cache, to add the
gradient. No weight belongs to two groups, so programs never meet, and the result is the same in every run.

PyTorch brings Triton where it supports it, and Triton needs a C compiler beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

from hgsr_lite.fast.gpu.stacked import send
from hgsr_lite.fast.known import EXPONENTS
from hgsr_lite.groups import Layout, groups_first
from hgsr_lite.penalties import Penalty
from hgsr_lite.table import PenaltySpec

LARGEST = 7
"""Kernels of up to 2 ** 7 elements are served: 11x11 and less."""
TILE = 10
"""A program holds 2 ** 10 numbers at a time."""
COLUMNS = 7
"""Numbers in a row of the table of groups."""


@triton.jit
def _raise_to(base, exponent: tl.constexpr):
    """`base ** exponent`, with 0 where that is infinite."""
    if exponent == 2:
        return base * base
    elif exponent == 1:
        return base
    elif exponent == 0.5:
        return tl.sqrt(base)
    elif exponent == 0:
        return base * 0 + 1  # a NaN must stay one
    elif exponent == -0.5:
        return tl.where(base == 0, 0.0, 1.0 / tl.sqrt(base))
    else:
        return tl.where(base == 0, 0.0, 1.0 / base)


@triton.jit
def _norms_and_slopes(numbers, norm: tl.constexpr):
    """The kernels' norms, in float64, and the norms' derivatives.

    Each kernel is divided by its largest weight first: then no square vanishes and none overflows.
    """
    largest = tl.max(tl.abs(numbers), 1)
    unit = numbers / tl.where(largest == 0, 1.0, largest)[:, None]
    if norm == 1:
        length = tl.sum(tl.abs(unit), 1)
        slopes = (numbers > 0).to(tl.float32) - (numbers < 0).to(tl.float32)
    else:
        length = tl.sqrt_rn(tl.sum(unit * unit, 1))
        slopes = unit / tl.where(length == 0, 1.0, length)[:, None]
    return largest.to(tl.float64) * length.to(tl.float64), slopes


@triton.jit
def _tile_at(first, kernels, elements, kernel_stride, element_stride, bits: tl.constexpr, tile: tl.constexpr):
    """Where the kernels from `first` on lie, `(kernels, elements)`, and which of these places are real."""
    kernel = first + tl.arange(0, 1 << (tile - bits))[:, None]
    element = tl.arange(0, 1 << bits)[None, :]
    return kernel * kernel_stride + element * element_stride, (kernel < kernels) & (element < elements)


@triton.jit
def _serve(
    weights, gradients, kernels, elements, kernel_stride, element_stride, strength, l1_strength,
    norm: tl.constexpr, inner: tl.constexpr, outer: tl.constexpr, bits: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """Add one group's gradient; return its part of the term."""
    total, l1 = tl.full((), 0.0, tl.float64), tl.full((), 0.0, tl.float64)
    for first in range(0, kernels, 1 << (tile - bits)):
        at, real = _tile_at(first, kernels, elements, kernel_stride, element_stride, bits, tile)
        numbers = tl.load(weights + at, mask=real, other=0.0)
        norms, _ = _norms_and_slopes(numbers, norm)
        total += tl.sum(_raise_to(norms, inner))
        l1 += tl.sum(_norms_and_slopes(numbers, 1)[0])
    slope = strength * outer * inner * _raise_to(total, outer - 1)
    for first in range(0, kernels, 1 << (tile - bits)):
        at, real = _tile_at(first, kernels, elements, kernel_stride, element_stride, bits, tile)
        numbers = tl.load(weights + at, mask=real, other=0.0)
        norms, slopes = _norms_and_slopes(numbers, norm)
        force = (slope * _raise_to(norms, inner - 1)).to(tl.float32)
        added = force[:, None] * slopes + l1_strength * _norms_and_slopes(numbers, 1)[1]
        tl.store(gradients + at, tl.load(gradients + at, mask=real) + added, mask=real)
    return strength * _raise_to(total, outer) + l1_strength * l1


@triton.jit
def _serve_all(
    addresses, groups, values, strength, l1_strength,
    norm: tl.constexpr, inner: tl.constexpr, outer: tl.constexpr,
    sizes: tl.constexpr, largest: tl.constexpr, columns: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """One program a group: find out where it lies and how large its kernels are, and serve it."""
    group = tl.program_id(0)
    row = groups + group * columns
    layer, start, kernels, elements = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    kernel_stride, element_stride, size = tl.load(row + 4), tl.load(row + 5), tl.load(row + 6)
    weights = tl.load(addresses + 2 * layer).to(tl.pointer_type(tl.float32)) + start
    gradients = tl.load(addresses + 2 * layer + 1).to(tl.pointer_type(tl.float32)) + start
    for bits in tl.static_range(0, largest + 1):
        if (sizes >> bits) & 1:  # noqa: SIM102 - decided when compiling: only for sizes that occur
            if size == bits:
                value = _serve(
                    weights, gradients, kernels, elements, kernel_stride, element_stride, strength,
                    l1_strength, norm, inner, outer, bits, tile,
                )  # fmt: skip
                tl.store(values + group, value)


@dataclass(eq=False)
class LaunchTable:
    """What the launch needs to know of weights that stay where they are.

    `groups` has one row a group: its layer, where it starts in that layer's memory, its number of kernels,
    their number of elements, two strides (all in elements), and the power of 2 that holds a kernel. `sizes`
    has one bit for each such power that occurs.
    """

    weights: list[Tensor]
    groups: Tensor
    sizes: int
    _places: list[int] = field(default_factory=list)
    _addresses: Tensor | None = None

    def addresses(self, gradients: list[Tensor]) -> Tensor:
        """Where every weight and its gradient lie, on the device; sent there only when one has moved."""
        places = [*map(Tensor.data_ptr, gradients)]
        if places != self._places:
            pairs = [*zip(map(Tensor.data_ptr, self.weights), places, strict=True)]
            self._places, self._addresses = places, send(pairs, self.groups.device)
        return self._addresses


def knows(spec: PenaltySpec) -> bool:
    """Whether the launch has code for a row's exponents."""
    return {spec.inner, spec.inner - 1, spec.outer, spec.outer - 1} <= EXPONENTS


def launch_table(weights: list[Tensor], layouts: list[Layout], grouping: str) -> LaunchTable | None:
    """The table for weights that one launch can serve, else None.

    It takes float32 weights on one device, in any memory format that shows their kernels without a copy
    (`stacked.stackable`), with kernels of up to 128 elements. `knows` says for which penalties.

    >>> table = launch_table([torch.zeros(4, 2, 3, 3), torch.zeros(4, 4, 1, 1)], [Layout()] * 2, "feature")
    >>> table.groups[[0, 1, 2]].tolist()
    [[0, 0, 4, 9, 18, 1, 4], [0, 9, 4, 9, 18, 1, 4], [1, 0, 4, 1, 4, 1, 0]]
    >>> launch_table([torch.zeros(4, 2, 13, 13)], [Layout()], "feature") is None
    True
    """
    stacks = [groups_first(weight, layout, grouping) for weight, layout in zip(weights, layouts, strict=True)]
    powers = [(stack.shape[-1] - 1).bit_length() for stack in stacks]
    if max(powers) > LARGEST or any(weight.dtype != torch.float32 for weight in weights):
        return None
    rows = []
    for layer, (stack, power) in enumerate(zip(stacks, powers, strict=True)):
        conv_groups, groups, kernels, elements = stack.shape
        conv_stride, group_stride, kernel_stride, element_stride = stack.stride()
        starts = torch.arange(conv_groups)[:, None] * conv_stride + torch.arange(groups) * group_stride
        row = torch.tensor([layer, 0, kernels, elements, kernel_stride, element_stride, power])
        part = row.repeat(starts.numel(), 1)
        part[:, 1] = starts.flatten()
        rows.append(part)
    sizes = sum(1 << power for power in set(powers))
    return LaunchTable(weights, torch.cat(rows).to(weights[0].device), sizes)


def launched_gradient_(
    penalty: Penalty,
    table: LaunchTable,
    gradients: list[Tensor],
    strength: float,
    l1_strength: float = 0.0,
) -> Tensor:
    """Add `strength * penalty' + l1_strength * sign(w)` to the gradients in place; return that term's value.

    Each gradient has its weight's dtype and strides. On a CPU it runs only where Triton interprets
    (`TRITON_INTERPRET=1`), which is how it is tested.
    """
    spec, groups = penalty.spec, table.groups
    values = torch.empty(len(groups), device=groups.device, dtype=torch.float64)
    with torch.cuda.device_of(groups):
        _serve_all[(len(groups),)](
            table.addresses(gradients), groups, values, strength, l1_strength,
            spec.norm, spec.inner, spec.outer, table.sizes, LARGEST, COLUMNS, TILE,
        )  # fmt: skip
    return values.sum().float()
