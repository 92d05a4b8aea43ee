"""Which version of the penalty's gradient serves a set of layers, with the tables that it works from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hgsr_lite.groups import WeightLayer
from hgsr_lite.stacked import buckets, stackable


@dataclass(frozen=True)
class Plan:
    """How `add_gradient_` works, and the tables that it needs for that."""

    backend: str
    tables: Sequence[Any] = ()


def make_plan(layers: list[WeightLayer], grouping: str) -> Plan:
    """Choose for these layers as they are now; see `Regularizer.backend`."""
    weights, layouts = [layer.weight for layer in layers], [layer.layout for layer in layers]
    if weights[0].is_cuda:
        return (
            Plan("stacked", buckets(weights, layouts, grouping))
            if stackable(weights, layouts)
            else Plan("plain")
        )
    try:
        # numba takes a second to import: only those who train pay for it, and none who cannot have it.
        from hgsr_lite.fused import block_rows, fused_layers
    except ImportError:
        return Plan("plain")
    rows = fused_layers(weights, layouts, grouping)
    return Plan("plain") if rows is None else Plan("compiled", (rows, block_rows(rows)))
