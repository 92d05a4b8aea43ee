"""What became zero: five figures a layer and overall, because no single one tells the truth.

Weights below a tolerance say how small; exact zeros say how empty; dead kernels, dead inputs and dead
outputs say what could be left out. See `SparsityReport` for what each one means.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from hgsr_lite.arguments import check_flag, check_tolerance
from hgsr_lite.groups import kernel_stack
from hgsr_lite.layers import WeightLayer, weight_layers


@dataclass(frozen=True)
class LayerSparsity:
    """The counts of one layer (or of a whole model): how many there are, and how many are empty.

    A kernel is dead if all its weights are below the tolerance; an input channel if all kernels that
    read it are, an output channel if all kernels that make it are.
    """

    name: str
    weights: int
    below_tolerance: int
    exact_zeros: int
    kernels: int
    dead_kernels: int
    input_channels: int
    dead_input_channels: int
    output_channels: int
    dead_output_channels: int

    def shares(self) -> dict[str, float]:
        """The five figures as shares from 0 to 1, dead inputs and dead outputs apart."""
        return {
            "below tolerance": self.below_tolerance / self.weights,
            "exact zeros": self.exact_zeros / self.weights,
            "dead kernels": self.dead_kernels / self.kernels,
            "dead inputs": self.dead_input_channels / self.input_channels,
            "dead outputs": self.dead_output_channels / self.output_channels,
        }


@dataclass(frozen=True)
class SparsityReport:
    """The sparsity of a model's weights, layer by layer and overall.

    `tolerance` is absolute, or in units of each layer's root mean square if `relative` is true: before
    a batch norm the scale of a layer means nothing, so a fixed tolerance can be met by shrinking all of
    it. Believe a share below tolerance only after `zero_below_` and a second look at the accuracy.
    """

    layers: tuple[LayerSparsity, ...]
    tolerance: float
    relative: bool

    @property
    def overall(self) -> LayerSparsity:
        """The counts of all layers added up."""
        counts = [name for name in LayerSparsity.__dataclass_fields__ if name != "name"]
        return LayerSparsity("all", *(sum(getattr(layer, name) for layer in self.layers) for name in counts))

    @property
    def below_tolerance(self) -> float:
        """Share of weights whose absolute value is below the tolerance, 0 to 1."""
        return self.overall.shares()["below tolerance"]

    @property
    def exact_zeros(self) -> float:
        """Share of weights that are exactly zero, 0 to 1."""
        return self.overall.shares()["exact zeros"]

    @property
    def dead_kernels(self) -> float:
        """Share of kernels that lie below the tolerance as a whole, 0 to 1."""
        return self.overall.shares()["dead kernels"]

    @property
    def dead_inputs(self) -> float:
        """Share of input channels that no living kernel reads, 0 to 1."""
        return self.overall.shares()["dead inputs"]

    @property
    def dead_outputs(self) -> float:
        """Share of output channels that no living kernel makes, 0 to 1."""
        return self.overall.shares()["dead outputs"]

    def to_frame(self) -> pd.DataFrame:
        """One row a layer and a last row `all`: the counts, then the five shares."""
        rows = [*self.layers, self.overall]
        return pd.DataFrame([{**vars(row), **row.shares()} for row in rows]).set_index("name")

    def _shown(self) -> pd.DataFrame:
        rows = [*self.layers, self.overall]
        shares = pd.DataFrame([row.shares() for row in rows], index=[row.name for row in rows])
        table = shares.map("{:.1%}".format)
        table.insert(0, "weights", [row.weights for row in rows])
        return table

    def _title(self) -> str:
        unit = " x the layer's root mean square" if self.relative else ""
        return f"sparsity at tolerance {self.tolerance:g}{unit}"

    def __str__(self) -> str:
        return f"{self._title()}\n{self._shown().to_string()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._shown().to_html().replace("<table", f"<p>{self._title()}</p><table")


def _small(weight: Tensor, tolerance: float, relative: bool) -> Tensor:
    """Where a weight counts as zero; an exact zero always does."""
    wide = weight.double() if relative else weight
    threshold = tolerance * wide.square().mean().sqrt() if relative else tolerance
    return (wide.abs() < threshold) | (weight == 0)


def _check_finite(layer: WeightLayer) -> Tensor:
    weight = layer.weight.detach()
    if not torch.isfinite(weight).all():
        raise ValueError(f"layer {layer.name!r} holds NaN or infinite weights: its sparsity means nothing")
    return weight


def _count(layer: WeightLayer, tolerance: float, relative: bool) -> LayerSparsity:
    weight = _check_finite(layer)
    small = kernel_stack(_small(weight, tolerance, relative).float(), layer.layout).bool()
    dead_kernels = small.all(-1)
    dead_inputs, dead_outputs = dead_kernels.all(1), dead_kernels.all(2)
    return LayerSparsity(
        name=layer.name,
        weights=weight.numel(),
        below_tolerance=int(small.sum()),
        exact_zeros=int((weight == 0).sum()),
        kernels=dead_kernels.numel(),
        dead_kernels=int(dead_kernels.sum()),
        input_channels=dead_inputs.numel(),
        dead_input_channels=int(dead_inputs.sum()),
        output_channels=dead_outputs.numel(),
        dead_output_channels=int(dead_outputs.sum()),
    )


def sparsity(
    model: nn.Module,
    tolerance: float = 1e-3,
    relative: bool = False,
    *,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
) -> SparsityReport:
    """Count what is empty in a model: weights, kernels, input channels, output channels.

    `tolerance` is an absolute value (the authors count below 1e-3) or, with `relative=True`, a multiple
    of each layer's root mean square. Layers are chosen as in `weight_layers`: every convolution, unless
    `include` and `exclude` say otherwise. Raises `ValueError` for a negative tolerance, for weights that
    are not finite and for a model without such a layer.

    >>> layer = nn.Conv2d(2, 1, 1, bias=False)
    >>> layer.weight = nn.Parameter(torch.tensor([[[[0.5]], [[1e-4]]]]))
    >>> report = sparsity(layer)
    >>> report.below_tolerance, report.exact_zeros, report.dead_kernels
    (0.5, 0.0, 0.5)
    >>> report.overall.dead_input_channels
    1
    """
    tolerance = check_tolerance(tolerance)
    check_flag("relative", relative)
    layers = weight_layers(model, include, exclude)
    return SparsityReport(tuple(_count(layer, tolerance, relative) for layer in layers), tolerance, relative)


@torch.no_grad()
def zero_below_(
    model: nn.Module,
    tolerance: float = 1e-3,
    relative: bool = False,
    *,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
) -> int:
    """Set every weight below the tolerance to exactly zero, in place; return how many were changed.

    Arguments and errors as in `sparsity`; and `ValueError` for a weight that is computed (weight norm,
    a pruning mask, any parametrization), which cannot be written to: nothing is changed then.

    >>> layer = nn.Conv2d(2, 1, 1, bias=False)
    >>> layer.weight = nn.Parameter(torch.tensor([[[[0.5]], [[1e-4]]]]))
    >>> zero_below_(layer)
    1
    >>> layer.weight.flatten()
    tensor([0.5000, 0.0000], grad_fn=<ViewBackward0>)
    """
    tolerance = check_tolerance(tolerance)
    check_flag("relative", relative)
    layers = weight_layers(model, include, exclude)
    weights = [layer.stored_weight("nothing was set to zero") for layer in layers]
    for layer in layers:
        _check_finite(layer)
    changed = 0
    for weight in weights:
        small = _small(weight, tolerance, relative)
        changed += int((small & (weight != 0)).sum())
        weight.masked_fill_(small, 0.0)
    return changed
