"""Which version of the penalty serves a set of layers, ready to be called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from hgsr_lite.groups import WeightLayer
from hgsr_lite.penalties import Penalty
from hgsr_lite.stacked import buckets, stackable, stacked_gradient_


@dataclass(frozen=True, eq=False)
class Plan:
    """How a penalty serves layers whose weights stay where they are.

    `add_gradient(gradients, strength, l1_strength)` returns the term's value; `take_proximal_step(step,
    l1_step)` the number of groups whose weights are not finite. None: the plain formula, layer by layer.
    """

    backend: str = "plain"
    add_gradient: Callable[[list[Tensor], float, float], Tensor] | None = None
    take_proximal_step: Callable[[float, float], int] | None = None


def make_plan(penalty: Penalty, layers: list[WeightLayer]) -> Plan:
    """Choose for these layers as they are now; see `Regularizer.backend`."""
    weights, layouts = [layer.weight.detach() for layer in layers], [layer.layout for layer in layers]
    if weights[0].is_cuda:
        if not stackable(weights, layouts):
            return Plan()
        tables = buckets(weights, layouts, penalty.grouping)
        return Plan("stacked", partial(stacked_gradient_, penalty, weights, layouts, tables))
    try:
        # numba takes a second to import: only those who train pay for it, and none who cannot have it.
        from hgsr_lite.fused import compiled_work, fused_gradient_
        from hgsr_lite.fused_prox import fused_prox_
    except ImportError:
        return Plan()
    work = compiled_work(weights, layouts, penalty.grouping)
    if work is None:
        return Plan()
    return Plan("compiled", partial(fused_gradient_, penalty, work), partial(fused_prox_, penalty, work))
