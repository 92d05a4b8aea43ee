"""Which version of the penalty serves a set of weights, ready to be called."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from hgsr_lite.fast.gpu.round_trip import copied_prox
from hgsr_lite.fast.gpu.stacked import buckets, stackable, stacked_gradient_
from hgsr_lite.fast.plain import plain_gradient_, plain_prox_
from hgsr_lite.groups import Layout
from hgsr_lite.penalties import Penalty

_DTYPE_OF = attrgetter("dtype")
_LOG = logging.getLogger(__name__)
_MOST_COPIED = 1 << 20  # weights; with more, a GPU may be quicker by itself: benchmarks/proximal.py


@dataclass(frozen=True, eq=False)
class Plan:
    """How a penalty serves weights that stay where they are; every version keeps the same contract.

    `add_gradient(gradients, strength, l1_strength)` adds the term's gradient and returns its value; the
    gradients look like the weights in memory. `value(strength, l1_strength)` is the value alone, where that
    takes less time; else None. `take_proximal_step(step, l1_step)` moves the weights and
    returns the number of groups with NaN or infinite weights, which it leaves alone. Gradients agree to
    rounding, at every scale of the weights; arguments are checked before, by `Regularizer`.
    """

    backend: str
    add_gradient: Callable[[list[Tensor], float, float], Tensor]
    value: Callable[[float, float], Tensor] | None
    take_proximal_step: Callable[[float, float], int]


def plain_plan(penalty: Penalty, weights: list[Tensor], layouts: list[Layout]) -> Plan:
    """The readable formula, layer by layer: any weights, and gradients of any form."""
    parts = (penalty, weights, layouts)
    return Plan("plain", partial(plain_gradient_, *parts), None, partial(plain_prox_, *parts))


class Plans:
    """Keeps the plan for some weights, and makes another when a weight moves or changes its form.

    A copy starts without one: this one's acts on this one's weights.
    """

    def __init__(self) -> None:
        self._form: list = []
        self._stored: list = []
        self._plan: Plan | None = None

    def of(
        self,
        penalty: Penalty,
        weights: list[Tensor],
        layouts: list[Layout],
        gradients: list[Tensor] | None = None,
    ) -> Plan:
        """The plan for these weights as they are now; the plain one for gradients of another form."""
        # Every microsecond here is one of each training step: plain lists, made without a loop in Python.
        stored = _stored_as(weights)
        form = [penalty, [*map(Tensor.data_ptr, weights)], [*map(Tensor.size, weights)], stored]
        if form != self._form:
            made = make_plan(penalty, [weight.detach() for weight in weights], layouts)
            if self._plan is None or made.backend != self._plan.backend:
                _LOG.info("penalty: %s version", made.backend)
            self._form, self._stored, self._plan = form, stored, made
        if gradients is not None and _stored_as(gradients) != self._stored:
            return plain_plan(penalty, [weight.detach() for weight in weights], layouts)
        return self._plan

    def __reduce__(self) -> tuple:
        return Plans, ()


def _stored_as(tensors: list[Tensor]) -> list:
    """The strides and dtypes: fast versions write to gradients as to memory that looks like the weights'."""
    return [[*map(Tensor.stride, tensors)], [*map(_DTYPE_OF, tensors)]]


def make_plan(penalty: Penalty, weights: list[Tensor], layouts: list[Layout]) -> Plan:
    """Choose for these weights as they are now; see `Regularizer.backend`."""
    plain = plain_plan(penalty, weights, layouts)
    if weights[0].is_cuda:
        return plan_for_gpu(penalty, weights, layouts)
    try:
        # numba takes a second to import: only those who train pay for it, and none who cannot have it.
        from hgsr_lite.fast.cpu import gradient, prox
    except ImportError:
        return plain
    work = gradient.compiled_work(weights, layouts, penalty.grouping)
    if work is not None and prox.knows(penalty.spec):
        plain = replace(plain, take_proximal_step=partial(prox.fused_prox_, penalty, work))
    if work is None or not gradient.knows(penalty.spec):
        return plain
    fused = (partial(version, penalty, work) for version in (gradient.fused_gradient_, gradient.fused_value))
    return replace(plain, backend="compiled", **dict(zip(("add_gradient", "value"), fused, strict=True)))


def plan_for_gpu(penalty: Penalty, weights: list[Tensor], layouts: list[Layout]) -> Plan:
    """One launch where this machine can compile it and its numbers are right, else some twenty operators."""
    plain = plain_plan(penalty, weights, layouts)
    plain = replace(plain, take_proximal_step=_ProximalStepOnGpu(penalty, weights, layouts))
    if not stackable(weights, layouts):
        return plain
    tables = buckets(weights, layouts, penalty.grouping)
    stacked = partial(stacked_gradient_, penalty, weights, layouts, tables)
    try:
        from hgsr_lite.fast.gpu.one_launch import knows, launch_table, launched_gradient_

        table = launch_table(weights, layouts, penalty.grouping)
        if table is not None and knows(penalty.spec):
            launched = partial(launched_gradient_, penalty, table)
            distance = _distance(launched, stacked, weights)
            if distance <= 1e-5:
                return replace(plain, backend="triton", add_gradient=launched)
            if math.isfinite(distance):
                _LOG.warning("penalty: Triton's numbers are wrong on this machine; please report that")
    except Exception as error:  # no Triton, no C compiler, a GPU that Triton does not know: all are answered
        level = logging.INFO if isinstance(error, ImportError) else logging.WARNING
        _LOG.log(level, "penalty: not in one launch (%s: %s)", type(error).__name__, error)
    return replace(plain, backend="stacked", add_gradient=stacked)


class _ProximalStepOnGpu:
    """A proximal step by way of the CPU where that serves and is quicker, else in the GPU's operators.

    Chosen at the first step: who trains with gradients alone neither compiles nor copies anything.
    """

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __call__(self, step: float, l1_step: float = 0.0) -> int:
        return self._way(step, l1_step)

    @cached_property
    def _way(self) -> Callable[[float, float], int]:
        _, weights, _ = self._parts
        found = None
        if sum(map(Tensor.numel, weights)) <= _MOST_COPIED:
            try:
                found = copied_prox(*self._parts)
            except RuntimeError as error:  # no memory of the kind that a GPU reads by itself
                _LOG.warning("proximal step: not by way of the CPU (%s)", error)
        return found or partial(plain_prox_, *self._parts)


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
