"""The one measurement of a trained network: as it stands, with its small weights zeroed, and made smaller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from torch import nn

from hgsr_lite.computed_weights import plain_copy
from hgsr_lite.data import Data
from hgsr_lite.removal import compact
from hgsr_lite.training import accuracy, evaluate
from hgsr_lite.zeros import SparsityReport, sparsity, zero_below_

SPARSITY_METRICS = ("below tolerance", "exact zeros", "dead kernels", "dead inputs", "dead outputs")
"""Shares in 0..1: of the weights twice, of the kernels, of the input and of the output channels."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What one network came to: the metrics, the sparsity layer by layer, and the smaller network itself."""

    metrics: dict[str, float]
    report: SparsityReport
    small: nn.Module


def measure(
    model: nn.Module,
    data: Data,
    tolerance: float = 1e-3,
    relative: bool = False,
    *,
    zero: Callable[[nn.Module], object] | None = None,
    test: bool = False,
) -> Measurement:
    """Measure a network; it is not changed, and without `test` the test part is not read.

    `zero` sets the weights to zero that are to go (None: those below `tolerance`). Sparsity is counted after
    that, but for `exact zeros`, which are those of the network as it was given; dead inputs and outputs are
    what `compact` can start from. Accuracies, shares in 0..1, are given as trained, after zeroing and after
    removal; loss in nats; parameters and multiply-accumulates (for one image) as counts.

    >>> from hgsr_lite.data import load_data
    >>> from hgsr_lite.models import build_model
    >>> data = load_data("digits", device="cpu", limit=100)
    >>> found = measure(build_model("digits_cnn", in_channels=1, num_classes=10, seed=0), data)
    >>> found.metrics["parameters"], "test accuracy" in found.metrics
    (56554, False)
    """
    zeroed = plain_copy(model).eval()
    before = sparsity(model, tolerance, relative)
    if zero is None:
        zero_below_(zeroed, tolerance, relative)
        report = before
    else:
        zero(zeroed)
        report = sparsity(zeroed, 0.0)
    small, removal = compact(zeroed, data.validation.images[:8], repeats=0)
    loss, right = evaluate(model, data.validation)
    metrics = {"validation loss": loss, "validation accuracy": right}
    for part, split in {"validation": data.validation, **({"test": data.test} if test else {})}.items():
        if part == "test":
            metrics["test accuracy"] = accuracy(model, split)
        metrics[f"{part} accuracy after zeroing"] = accuracy(zeroed, split)
        metrics[f"{part} accuracy after removal"] = accuracy(small, split)
    metrics |= report.overall.shares() | {"exact zeros": before.exact_zeros}
    metrics |= {"parameters": removal.before.parameters, "parameters left": removal.after.parameters}
    metrics |= {"MACs": removal.before.macs, "MACs left": removal.after.macs}
    return Measurement(metrics, report, small)


def by_layer(report: SparsityReport) -> pd.DataFrame:
    """The counts of every layer, one row a layer."""
    return pd.DataFrame([vars(layer) for layer in report.layers]).set_index("name")
