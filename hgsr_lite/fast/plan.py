"""Which version of the penalty serves a set of layers, ready to be called."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hgsr_lite.fast.gpu.stacked import buckets, stackable, stacked_gradient_
from hgsr_lite.groups import Layout, WeightLayer
from hgsr_lite.penalties import Penalty

_LOG = logging.getLogger(__name__)


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
        return plan_for_gpu(penalty, weights, layouts)
    try:
        # numba takes a second to import: only those who train pay for it, and none who cannot have it.
        from hgsr_lite.fast.cpu.gradient import compiled_work, fused_gradient_
        from hgsr_lite.fast.cpu.prox import fused_prox_
    except ImportError:
        return Plan()
    work = compiled_work(weights, layouts, penalty.grouping)
    if work is None:
        return Plan()
    return Plan("compiled", partial(fused_gradient_, penalty, work), partial(fused_prox_, penalty, work))


def plan_for_gpu(penalty: Penalty, weights: list[Tensor], layouts: list[Layout]) -> Plan:
    """One launch where this machine can compile it and its numbers are right, else some twenty operators."""
    if not stackable(weights, layouts):
        return Plan()
    tables = buckets(weights, layouts, penalty.grouping)
    stacked = partial(stacked_gradient_, penalty, weights, layouts, tables)
    try:
        from hgsr_lite.fast.gpu.one_launch import launch_table, launched_gradient_

        table = launch_table(weights, layouts, penalty.grouping)
        if table is not None:
            launched = partial(launched_gradient_, penalty, table)
            distance = _distance(launched, stacked, weights)
            if distance <= 1e-5:
                return Plan("triton", launched)
            if math.isfinite(distance):
                _LOG.warning("penalty: Triton's numbers are wrong on this machine; please report that")
    except Exception as error:  # no Triton, no C compiler, a GPU that Triton does not know: all are answered
        _LOG.info("penalty: not in one launch (%s: %s)", type(error).__name__, error)
    return Plan("stacked", stacked)


def _distance(one: Callable, other: Callable, weights: list[Tensor]) -> float:
    """How far two versions are apart on these weights, relative; NaN where the second is not finite.

    A compiler for GPUs is trusted once it was checked.
    """
    results = []
    for add_gradient in (one, other):
        gradients = [torch.zeros_like(weight) for weight in weights]
        value = add_gradient(gradients, 1.0, 0.5)
        results.append(torch.cat([value.view(1), *(gradient.flatten() for gradient in gradients)]))
    found, expected = results
    if not expected.isfinite().all():
        return math.nan
    distance = torch.linalg.vector_norm(found.double() - expected.double())
    length = torch.linalg.vector_norm(expected.double())
    return (distance / length).item() if length else float(distance)
