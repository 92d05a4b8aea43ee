"""What was removed from a network, what that saves, and how far its outputs moved."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from torch import Tensor, nn
from torch.optim import Optimizer

from hgsr_lite.removal.carrying import KeptChannels, carry_optimizer_
from hgsr_lite.removal.cost import Cost
from hgsr_lite.removal.proof import OutputChange


def written(figure: float) -> str:
    """A figure of a report: large counts in full, everything else to four digits.

    >>> written(56554.0), written(1.93512)
    ('56,554', '1.935')
    """
    return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.4g}"


def before_and_after(rows: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """What something was before and after, a row each, and how many times less it became.

    >>> before_and_after({"MACs": (6.0, 2.0)}).loc["MACs"].tolist()
    [6.0, 2.0, 3.0]
    """
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["before", "after"])
    table["times less"] = table["before"] / table["after"]
    return table


class Report(ABC):
    """What a report looks like: sentences, a table of what was saved, and one of the layers."""

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """One row a layer."""

    @abstractmethod
    def _savings(self) -> pd.DataFrame: ...

    @abstractmethod
    def _sentences(self) -> list[str]: ...

    def __str__(self) -> str:
        savings = self._savings().to_string(float_format=written)
        return "\n".join([*self._sentences(), savings, self.to_frame().to_string()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self._sentences())
        savings = self._savings().to_html(float_format=written)
        return f"<ul>{lines}</ul>{savings}{self.to_frame().to_html()}"


@dataclass(frozen=True)
class LayerChange:
    """One layer's channels before and after, and how many of its outputs went exactly or approximately."""

    name: str
    inputs_before: int
    inputs_after: int
    outputs_before: int
    outputs_after: int
    exact: int
    approximate: int


@dataclass(frozen=True, repr=False)
class CompactReport(Report):
    """What `compact` took out of a model, what that saves, and how far the outputs moved.

    `change` is measured in the model's own dtype, on the example and on random images, and where a removal is
    approximate on images twice as high; `proof` in float64
    after the exact removals and before any approximate one, in every case of `Proof` that the model takes.
    `kept_for_shape` names the layers that would have lost their last channel or, in a grouped convolution,
    more from one group than from another; `fixed` names layers whose channels were left alone, with the
    reason. `kept` has the numbers of each layer's channels that are left; `places` says of every number of
    the smaller model's tensors where it stood, counted through the original tensor.
    """

    layers: tuple[LayerChange, ...]
    before: Cost
    after: Cost
    change: dict[str, OutputChange]
    proof: dict[str, OutputChange]
    kept_for_shape: tuple[str, ...]
    fixed: dict[str, str]
    kept: dict[str, KeptChannels]
    places: dict[str, Tensor]

    def carry_(self, optimizer: Optimizer, model: nn.Module, small: nn.Module) -> None:
        """Let an optimizer of the original model go on with the smaller one, in place.

        An optimizer that is left as it is goes on training the original. Here each parameter is replaced by
        what is left of it, its state (momentum, Adam's moments) cut to the same channels; learning rates and
        a scheduler stay. A bias that the removal made begins without a state; parameters of other models in
        the optimizer stay. For a regularizer there is `Regularizer.on(small)`.

        Raises `ValueError` if the optimizer is another model's, this report is of other networks, or the
        state cannot be cut (LBFGS, Adafactor); nothing is changed then.

        >>> import torch
        >>> from hgsr_lite.removal import compact
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> _ = net[2].weight.data[:, 0].zero_()
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> small, report = compact(net, torch.ones(1, 1, 8, 8), repeats=0)
        >>> report.carry_(optimizer, net, small)
        >>> report.kept["0"].outputs, [len(p) for p in optimizer.param_groups[0]["params"]]
        ([1, 2, 3], [3, 3, 2, 2])
        """
        carry_optimizer_(optimizer, model, small, self.places)

    @property
    def exact(self) -> int:
        """How many output channels went without any change of the function."""
        return sum(layer.exact for layer in self.layers)

    @property
    def approximate(self) -> int:
        """How many output channels left a constant behind that a zero-padded border cuts off."""
        return sum(layer.approximate for layer in self.layers)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer: channels before and after on both sides, outputs removed exactly or not."""
        return pd.DataFrame([vars(layer) for layer in self.layers]).set_index("name")

    def costs(self) -> pd.DataFrame:
        """Three rows, parameters, MACs and milliseconds: before, after, and how many times less."""
        rows = {
            "parameters": (self.before.parameters, self.after.parameters),
            "MACs per image": (self.before.macs, self.after.macs),
            "milliseconds per batch": (1e3 * self.before.seconds, 1e3 * self.after.seconds),
        }
        return before_and_after(rows)

    def _savings(self) -> pd.DataFrame:
        return self.costs()

    def _sentences(self) -> list[str]:
        changes = ", ".join(
            f"{what} {change.absolute:.2g} ({change.relative:.1e} of the largest output)"
            for what, change in self.change.items()
        )
        lines = [
            f"{self.exact} output channels removed exactly, {self.approximate} approximately",
            f"largest change of output: {changes}",
            f"the exact removals were proved in float64 on: {', '.join(self.proof)}",
        ]
        if self.approximate:
            lines.append("approximate removals change more or less at another size of the images: try yours")
        if self.kept_for_shape:
            names = ", ".join(self.kept_for_shape)
            lines.append(f"kept for the shape, as a layer needs a channel in each group: {names}")
        lines += [f"left alone: {name} ({reason})" for name, reason in self.fixed.items()]
        return lines
