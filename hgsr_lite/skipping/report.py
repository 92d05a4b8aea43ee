"""What skipping dead kernels saves: multiply-adds, bytes and time, in a table and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from hgsr_lite.coupling import first_line
from hgsr_lite.fast import alive_kernels
from hgsr_lite.removal import (
    CompactReport,
    Cost,
    OutputChange,
    Report,
    before_and_after,
    latency,
    macs,
    written,
)
from hgsr_lite.skipping.choice import DenseNetwork, compiled_for, formats_of
from hgsr_lite.skipping.living_file import living_bytes, stored_numbers

COMPILED = "torch.compile"


@dataclass(frozen=True)
class SkippedLayer:
    """One convolution's kernels, how many live, and why it is dense, if it is."""

    name: str
    kernels: int
    living: int
    dense_because: str

    @classmethod
    def of(cls, name: str, layer: nn.Module, reason: str) -> SkippedLayer:
        """Count the kernels of a convolution."""
        kernels = alive_kernels(layer.weight)
        return cls(name, kernels.numel(), int(kernels.sum()), reason)


@dataclass(frozen=True)
class SkipCosts:
    """A network before and after: numbers stored, bytes of its file, and what it takes for each batch size.

    What is stored is what the file of living kernels holds; in memory a network keeps its dense form as well.
    `before.seconds` is the fastest dense form, `dense_forms` says which: batch norms folded in, images and
    weights contiguous or in channels_last, or under `torch.compile`. `not_compiled` is None where that was
    not asked for, "" where it was timed, else why it could not be. Images come in PyTorch's ordinary layout.
    """

    bytes_before: int
    bytes_after: int
    by_batch: dict[int, tuple[Cost, Cost]]
    dense_forms: dict[int, str]
    not_compiled: str | None = None


def network_costs(
    model: nn.Module,
    fused: nn.Module,
    small: nn.Module,
    example: Tensor,
    batches: Sequence[int],
    repeats: int,
    compile_dense: bool,
) -> SkipCosts:
    """Measure the dense network at its best and the one without dead kernels, taking turns."""
    ordinary = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    numbers = sum(parameter.numel() for parameter in model.parameters()), stored_numbers(model)
    work = macs(fused, example), macs(small, example)
    costs, forms, problem = {}, {}, "" if compile_dense and repeats else None
    for count in batches:
        images = example[torch.arange(count) % len(example)]
        dense = {name: DenseNetwork(fused, order) for name, order in formats_of(images).items()}
        if problem == "":
            dense[COMPILED], problem = _compiled(fused, images)
        forms[count], *seconds = _seconds(dense, small, images, repeats)
        costs[count] = tuple(Cost(*each) for each in zip(numbers, work, seconds, strict=True))
    return SkipCosts(ordinary, living_bytes(model), costs, forms, problem)


def _compiled(fused: nn.Module, images: Tensor) -> tuple[nn.Module | None, str]:
    """The dense network under `torch.compile`, or None and why it cannot be."""
    try:
        return compiled_for(fused, images), ""
    except Exception as error:  # the compiler's, or of a forward method that it cannot follow
        return None, first_line(error)


def _seconds(
    dense: dict[str, nn.Module | None], small: nn.Module, images: Tensor, repeats: int
) -> tuple[str, float, float]:
    """The fastest dense form, its seconds, then those of `small`.

    A network that takes long is run less often, twice at least.
    """
    if not repeats:
        return "", math.nan, math.nan
    models = {"small": small, **{name: form for name, form in dense.items() if form is not None}}
    first = latency(models, images, 1)
    rounds = max(2, min(repeats, int(2 / sum(first.values()))))
    seconds = latency(models, images, rounds)
    living = seconds.pop("small")
    best = min(seconds, key=seconds.__getitem__)
    return best, seconds[best], living


@dataclass(frozen=True, repr=False)
class SkipReport(Report):
    """What `skip_dead_kernels` left out, what that saves, and how far the outputs moved.

    `change` is measured on the example and on random images, against the model given in. `tile` is how
    many images go through together; fewer than `dense_below` go through the dense network, with its batch
    norms folded in; `left_dense` says why all do, "" if they do not.
    """

    layers: tuple[SkippedLayer, ...]
    costs: SkipCosts
    change: dict[str, OutputChange]
    compacted: CompactReport | None = None
    tile: int | None = None
    dense_below: int = 1
    left_dense: str = ""

    @property
    def kernels(self) -> int:
        """How many kernels the convolutions have."""
        return sum(layer.kernels for layer in self.layers)

    @property
    def dead_kernels(self) -> int:
        """How many of them are all zero."""
        return self.kernels - sum(layer.living for layer in self.layers)

    def to_frame(self) -> pd.DataFrame:
        """One row a convolution: its kernels, the living ones, and why it is dense, if it is."""
        return pd.DataFrame([vars(layer) for layer in self.layers]).set_index("name")

    def table(self) -> pd.DataFrame:
        """What lives, is stored and done, before and after; with `compacted`, before channels went as well.

        Where the network stayed dense there is no second time: two clocks on one form show noise as a gain.
        """
        rows: dict[str, tuple[float, float]] = {"kernels": (self.kernels, self.kernels - self.dead_kernels)}
        for count, (before, after) in self.costs.by_batch.items():
            rows["numbers stored"] = (before.parameters, after.parameters)
            rows["multiply-adds per image"] = (before.macs, after.macs)
            seconds = math.nan if self.left_dense else after.seconds
            rows[f"milliseconds, batch {count}"] = (1e3 * before.seconds, 1e3 * seconds)
        rows["bytes of the file"] = (self.costs.bytes_before, self.costs.bytes_after)
        table = before_and_after(rows)
        if self.compacted is not None:
            first, layers = self.compacted.before, self.compacted.layers
            whole = {
                "output channels": sum(layer.outputs_before for layer in layers),
                "numbers stored": first.parameters,
                "multiply-adds per image": first.macs,
            }
            left = sum(layer.outputs_after for layer in layers)
            table = pd.concat([before_and_after({"output channels": (left, left)}), table])
            table.insert(0, "before compact", pd.Series(whole, dtype=float))
        return table

    def _savings(self) -> pd.DataFrame:
        return self.table()

    def _sentences(self) -> list[str]:
        lines = [f"{self.dead_kernels:,} of {self.kernels:,} kernels are dead"]
        if self.left_dense:
            lines.append(f"the network stayed dense: {self.left_dense}; it has one time only")
        if self.costs.not_compiled:
            lines.append(f"torch.compile could not be timed: {self.costs.not_compiled}")
        elif self.costs.not_compiled is not None:
            forms = ", ".join(f"{form} for {count}" for count, form in self.costs.dense_forms.items())
            lines.append(f"the dense network's fastest form, by the number of images: {forms}")
        if self.dense_below > 1:
            lines.append(
                f"batches of fewer than {self.dense_below} images go through the dense network: it is faster "
                "(to be sent there costs time too: for single images keep the dense one)"
            )
        worth = self._worth()
        if worth:
            lines.append(worth)
        changes = ", ".join(f"{what} {c.absolute:.2g} ({c.relative:.1e})" for what, c in self.change.items())
        lines.append(f"largest change of output (relative to the largest output): {changes}")
        return lines + [
            f"kept dense ({reason}): {', '.join(names)}" for reason, names in self._dense_layers().items()
        ]

    def _dense_layers(self) -> dict[str, list[str]]:
        """The layers that are dense, by the reason."""
        found: dict[str, list[str]] = {}
        for layer in self.layers:
            if layer.dense_because:
                found.setdefault(layer.dense_because, []).append(layer.name)
        return found

    def _worth(self) -> str:
        """What a dead kernel is worth here, what a dead channel, what both."""
        before, after = next(iter(self.costs.by_batch.values()))
        if not self.dead_kernels or not after.macs:
            return ""
        kernel = (before.macs - after.macs) / self.dead_kernels
        smaller = (self.costs.bytes_before - self.costs.bytes_after) / self.dead_kernels
        words = (
            f"a dead kernel saves {written(kernel)} multiply-adds an image"
            + (f" and {written(smaller)} bytes of the file" if smaller > 0 else "")
            + f"; without all of them {before.macs / after.macs:.3g} times fewer multiply-adds are left"
        )
        if self.compacted is None or not self.compacted.exact + self.compacted.approximate:
            return words
        gone = self.compacted.exact + self.compacted.approximate
        first = self.compacted.before.macs
        channel = written((first - before.macs) / gone)
        return (
            f"a dead channel saved {channel} multiply-adds an image; without all {gone} of them "
            f"{first / before.macs:.3g} times fewer are left; {words}; both together: "
            f"{first / after.macs:.3g} times fewer"
        )
