"""The readable formula, layer by layer, for whatever no faster version serves."""

from __future__ import annotations

import torch
from torch import Tensor

from hgsr_lite.groups import GROUPINGS, Layout, kernel_stack, sum_dtype, weight_of_stack
from hgsr_lite.penalties import Penalty

_L1 = Penalty("l1")


@torch.no_grad()
def plain_gradient_(
    penalty: Penalty,
    weights: list[Tensor],
    layouts: list[Layout],
    gradients: list[Tensor],
    strength: float,
    l1_strength: float = 0.0,
) -> Tensor:
    """Add `strength * penalty' + l1_strength * sign(w)` to the gradients in place; return that term's value.

    Weights and gradients of any dtype and memory format.

    >>> weight, gradient = torch.tensor([[1., -2.]]), torch.zeros(1, 2)
    >>> plain_gradient_(Penalty("es"), [weight], [Layout()], [gradient], 0.5)
    tensor(2.5000)
    >>> gradient
    tensor([[ 1., -2.]])
    """
    total = torch.zeros((), device=weights[0].device)
    for weight, layout, gradient in zip(weights, layouts, gradients, strict=True):
        for part, factor in ((penalty, strength), (_L1, l1_strength)):
            if factor or part is penalty:
                value, slope = part.value_and_gradient(weight, layout, factor)
                total = total + factor * value
                gradient.add_(slope)
    return total.to(sum_dtype(weights[0].dtype))


@torch.no_grad()
def plain_prox_(
    penalty: Penalty, weights: list[Tensor], layouts: list[Layout], step: float, l1_step: float = 0.0
) -> int:
    """Replace every weight by its prox, in place.

    Returns the number of groups that hold NaN or infinite entries; those are left as they are.
    """
    broken = 0
    for weight, layout in zip(weights, layouts, strict=True):
        finite = weight.isfinite()
        if finite.all():
            weight.copy_(penalty.prox(weight, step, layout, l1_step))
            continue
        over = (GROUPINGS[penalty.grouping], 3)
        whole = kernel_stack(finite.to(weight.dtype), layout).bool().all(over[1], keepdim=True)
        whole = whole.all(over[0], keepdim=True)
        broken += int((~whole).sum())
        whole = whole.expand_as(kernel_stack(weight, layout))
        whole = weight_of_stack(whole, layout, weight.shape)
        moved = penalty.prox(weight.where(whole, 0.0), step, layout, l1_step)
        weight.copy_(moved.where(whole, weight))
    return broken
