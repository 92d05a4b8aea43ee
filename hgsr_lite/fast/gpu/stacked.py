"""The penalty's gradient for every layer in about twenty operators, however many layers there are.

The kernels of all layers with equally many elements are laid under one another, group after group, and the
formula runs once over that table. It is for GPUs, where a narrow network's penalty is a queue of tiny
launches, and where `one_launch` cannot be compiled. It needs a copy of the weights, so the
CPU has loops of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hgsr_lite.groups import Layout, groups_first, kernel_stack, stack_norms, sum_dtype
from hgsr_lite.penalties import Penalty


def send(numbers: list, device: torch.device) -> Tensor:
    """A small table of numbers, on its way to a device without waiting for all that this still has to do."""
    table = torch.tensor(numbers)
    return (table.pin_memory() if device.type == "cuda" else table).to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class Bucket:
    """The layers whose kernels have the same number of elements: which ones, and how long each group is.

    `lengths` holds the number of kernels of every group, in the table's order.
    """

    layers: tuple[int, ...]
    lengths: Tensor


def stackable(weights: list[Tensor], layouts: list[Layout]) -> bool:
    """Whether all weights lie on one device, have one dtype, and show their kernels without a copy."""
    first = weights[0]
    return all(
        (weight.dtype, weight.device) == (first.dtype, first.device)
        and kernel_stack(weight.detach(), layout).data_ptr() == weight.data_ptr()
        for weight, layout in zip(weights, layouts, strict=True)
    )


def buckets(weights: list[Tensor], layouts: list[Layout], grouping: str) -> list[Bucket]:
    """Sort layers by the size of their kernels.

    >>> weights = [torch.zeros(4, 2, 3, 3), torch.zeros(4, 4, 1, 1), torch.zeros(2, 4, 3, 3)]
    >>> [(b.layers, b.lengths.tolist()) for b in buckets(weights, [Layout()] * 3, "feature")]
    [((0, 2), [4, 4, 2, 2, 2, 2]), ((1,), [4, 4, 4, 4])]
    """
    found: dict[int, list[tuple[int, list[int]]]] = {}
    for number, (weight, layout) in enumerate(zip(weights, layouts, strict=True)):
        conv_groups, groups, kernels, elements = groups_first(weight, layout, grouping).shape
        found.setdefault(elements, []).append((number, [kernels] * (conv_groups * groups)))
    device = weights[0].device
    return [
        Bucket(
            tuple(number for number, _ in members),
            torch.tensor([length for _, lengths in members for length in lengths], device=device),
        )
        for members in found.values()
    ]


@torch.no_grad()
def stacked_gradient_(
    penalty: Penalty,
    weights: list[Tensor],
    layouts: list[Layout],
    tables: list[Bucket],
    gradients: list[Tensor],
    strength: float,
    l1_strength: float = 0.0,
) -> Tensor:
    """Add `strength * penalty' + l1_strength * sign(w)` to the gradients in place; return that term's value.

    `tables` are the `buckets` of the weights. All weights lie on one device and have one dtype; any memory
    format will do.

    >>> weight, gradient = torch.tensor([[1., -2.]]), torch.zeros(1, 2)
    >>> tables = buckets([weight], [Layout()], "feature")
    >>> stacked_gradient_(Penalty("es"), [weight], [Layout()], tables, [gradient], 0.5)
    tensor(2.5000)
    >>> gradient
    tensor([[ 1., -2.]])
    """
    spec = penalty.spec
    total = torch.zeros((), device=weights[0].device)
    for table in tables:
        stacks = [groups_first(weights[n], layouts[n], penalty.grouping) for n in table.layers]
        rows = torch.cat([stack.flatten(0, 2) for stack in stacks])
        norms = stack_norms(rows, spec.norm)
        sums = torch.segment_reduce(norms.pow(spec.inner), "sum", lengths=table.lengths, unsafe=True)
        total = total + strength * sums.pow(spec.outer).sum()
        each = sums.repeat_interleave(table.lengths, output_size=len(rows))
        added = penalty.of_kernels(rows, norms, each, strength)
        if l1_strength:
            total = total + l1_strength * stack_norms(rows, 1).sum()
            added.add_(rows.sign(), alpha=l1_strength)
        pieces = added.split([stack[..., 0].numel() for stack in stacks])
        torch._foreach_add_(
            [groups_first(gradients[n], layouts[n], penalty.grouping) for n in table.layers],
            [piece.view(stack.shape) for piece, stack in zip(pieces, stacks, strict=True)],
        )
    return total.to(sum_dtype(weights[0].dtype))
