"""The proximal step of weights on a GPU, taken by the CPU's compiled loops on a copy of them.

A proximal step sorts every group and searches its threshold: on a GPU a queue of launches for each layer, and
the waiting for each answer. A narrow network's weights are on the CPU and back before the first of them ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hgsr_lite.fast.known import DTYPES
from hgsr_lite.groups import Layout
from hgsr_lite.penalties import Penalty

if TYPE_CHECKING:
    from hgsr_lite.fast.cpu.gradient import CompiledWork


def copied_prox(
    penalty: Penalty, weights: list[Tensor], layouts: list[Layout]
) -> Callable[[float, float], int] | None:
    """`copied_prox_`, ready for these weights; None where the compiled loops do not serve them.

    They serve weights of one dtype, float32 or float64, on one GPU (or on the CPU), each in a memory of its
    own: copies of weights that share one would not see each other change.

    >>> copied_prox(Penalty("es"), [torch.zeros(2, 2, dtype=torch.float16)], [Layout()]) is None
    True
    """
    try:
        from hgsr_lite.fast.cpu import gradient, prox
    except ImportError:
        return None
    kinds = {(weight.dtype, weight.device) for weight in weights}
    memories = {weight.untyped_storage().data_ptr() for weight in weights}
    dtype, device = next(iter(kinds))
    alike = len(kinds) == 1 and len(memories) == len(weights)
    known = device.type in ("cuda", "cpu") and dtype in DTYPES and prox.knows(penalty.spec)
    if not (alike and known):
        return None
    on_gpu = device.type == "cuda"
    copies = [torch.empty(weight.shape, dtype=dtype, pin_memory=on_gpu) for weight in weights]
    work = gradient.compiled_work(copies, layouts, penalty.grouping)
    return None if work is None else partial(copied_prox_, penalty, weights, copies, work)


@torch.no_grad()
def copied_prox_(
    penalty: Penalty,
    weights: list[Tensor],
    copies: list[Tensor],
    work: CompiledWork,
    step: float,
    l1_step: float = 0.0,
) -> int:
    """Replace every weight by its prox, in place, by way of its copy in the memory that `work` is on.

    Returns the number of groups that hold NaN or infinite entries; those are left as they are.
    """
    from hgsr_lite.fast.cpu.prox import fused_prox_

    for copy, weight in zip(copies, weights, strict=True):
        copy.copy_(weight, non_blocking=True)
    if weights[0].is_cuda:
        torch.cuda.current_stream(weights[0].device).synchronize()
    broken = fused_prox_(penalty, work, step, l1_step)
    for copy, weight in zip(copies, weights, strict=True):
        weight.copy_(copy, non_blocking=True)
    return broken
