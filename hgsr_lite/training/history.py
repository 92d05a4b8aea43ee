"""What a training run leaves behind: a record per epoch, pictures of the kernels, the test result."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from hgsr_lite.groups import kernel_norms
from hgsr_lite.layers import weight_layers

MOST_SNAPSHOTS = 40
"""Snapshots kept of one run, evenly spaced: enough for a scrubber, small enough for a checkpoint."""


@dataclass(frozen=True)
class TestResult:
    """The test set, read once: accuracy as trained, and again with the small weights set to zero.

    Accuracies and shares lie in 0..1. `below_tolerance`, `dead_kernels`, `dead_inputs` and `dead_outputs`
    are the shares of the trained network at `tolerance`; `exact_zeros` is the share before anything was set
    to zero, and `zeroed` how many weights the second measurement set to zero.
    """

    __test__ = False  # pytest would otherwise take the name for a test class

    accuracy: float
    accuracy_after_zeroing: float
    below_tolerance: float
    exact_zeros: float
    dead_kernels: float
    dead_inputs: float
    dead_outputs: float
    zeroed: int
    tolerance: float
    relative: bool


@dataclass
class History:
    """A run, epoch by epoch; what `fit` returns.

    `records` holds one dictionary an epoch: losses (nats), the penalty's term, validation accuracy and
    the five sparsity figures (shares, 0..1), the strength in force at its end, seconds. `snapshots`
    holds, for each layer, the l1 norms of its kernels as a tensor `(snapshot, output channels, input
    channels)` in bfloat16, taken after the epochs in `snapshot_epochs` (0: before training).
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    snapshots: dict[str, Tensor] = field(default_factory=dict)
    snapshot_epochs: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    test: TestResult | None = None
    interrupted: bool = False

    def take_snapshot(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Keep the kernels' norms after this epoch, if its turn has come (the first and last always)."""
        spacing = math.ceil(epochs / MOST_SNAPSHOTS)
        if epoch % spacing and epoch != epochs:
            return
        self.snapshot_epochs.append(epoch)
        for layer in weight_layers(model):
            norms = kernel_norms(layer.weight.detach(), 1, layer.layout).to("cpu", torch.bfloat16)[None]
            earlier = self.snapshots.get(layer.name)
            self.snapshots[layer.name] = norms if earlier is None else torch.cat([earlier, norms])

    def to_frame(self) -> pd.DataFrame:
        """The records as a table with the epoch as index."""
        return pd.DataFrame(self.records).set_index("epoch") if self.records else pd.DataFrame()

    def state(self) -> dict[str, Any]:
        """Everything as plain values and tensors, for a checkpoint."""
        return {**vars(self), "test": asdict(self.test) if self.test else None}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> History:
        """The history that `state` was taken from."""
        return cls(**{**state, "test": TestResult(**state["test"]) if state["test"] else None})

    def __str__(self) -> str:
        if not self.records:
            return "History: no epoch was finished"
        last = self.records[-1]
        lines = [
            f"{len(self.records)} epochs{' (interrupted)' if self.interrupted else ''}, "
            f"validation accuracy {last['validation accuracy']:.1%}, "
            f"{last['below tolerance']:.1%} of the weights below tolerance"
        ]
        if self.test:
            lines.append(
                f"test accuracy {self.test.accuracy:.1%}; with those weights set to zero "
                f"{self.test.accuracy_after_zeroing:.1%}"
            )
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__
