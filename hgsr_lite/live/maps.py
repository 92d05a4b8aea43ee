"""The kernels of a run under the hand: scrub through its epochs, move the threshold, point at a kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor, nn

from hgsr_lite.arguments import choose
from hgsr_lite.figures import COLOR_MAP, kernel_map
from hgsr_lite.groups import kernel_norms
from hgsr_lite.layers import weight_layers
from hgsr_lite.live.figure import LiveFigure
from hgsr_lite.training import History

MAP_COLORS = (
    (np.array(plt.get_cmap(COLOR_MAP)(np.arange(256)))[:, :3] * 255).round().astype(np.uint8).tobytes()
)
"""The colours of kernel maps as 256 times three bytes."""


class KernelMaps(LiveFigure):
    """One layer's kernel norms after each epoch of a run, with the run's curves beside it.

    `history` is what `fit` returns, `layer` the layer shown first (by default the middle one). The norms
    travel as one byte each on a logarithmic scale from `smallest` to the largest norm of the run. Raises
    `ValueError` for a layer that the history does not know, and for a history without snapshots.

    >>> norms = torch.rand(2, 4, 3)
    >>> figure = KernelMaps(History(snapshots={"conv": norms}, snapshot_epochs=[0, 5]), "conv")
    >>> figure.moment, len(figure.levels)
    (1, 24)
    """

    module = "maps.js"
    layers = traitlets.List().tag(sync=True)
    epochs = traitlets.List(traitlets.Int()).tag(sync=True)
    records = traitlets.List().tag(sync=True)
    scale = traitlets.Dict().tag(sync=True)
    colors = traitlets.Bytes(MAP_COLORS).tag(sync=True)
    levels = traitlets.Bytes().tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)
    moment = traitlets.Int(min=0).tag(sync=True)
    threshold = traitlets.Float(min=0.0).tag(sync=True)

    def __init__(self, history: History, layer: str | None = None, *, smallest: float = 1e-4) -> None:
        if not history.snapshots:
            raise ValueError("this history has no snapshots: train at least one epoch, with fit or fit_many")
        names = list(history.snapshots)
        shown = names[len(names) // 2] if layer is None else choose("layer", layer, names)
        largest = max(float(norms.max().nan_to_num(0.0)) for norms in history.snapshots.values())
        scale = {"smallest": smallest, "largest": max(largest, 10 * smallest)}
        self._norms = history.snapshots
        super().__init__(
            layers=_places(history.snapshots),
            epochs=list(history.snapshot_epochs),
            records=[plain_record(record) for record in history.records],
            scale=scale,
            levels=b"".join(norm_levels(norms, **scale) for norms in history.snapshots.values()),
            layer=shown,
            moment=len(history.snapshot_epochs) - 1,
            threshold=float(f"{math.sqrt(smallest * scale['largest']):.3g}"),
        )

    def picture(self) -> Figure:
        """The map before training beside the one at the moment shown, on one scale."""
        norms = self._norms[self.layer].float()
        maps = {
            "before training": norms[0],
            f"epoch {self.epochs[self.moment]} of {self.epochs[-1]}": norms[self.moment],
        }
        return kernel_map(maps, title=f"layer {self.layer}")

    def alt(self) -> str:
        """What `picture` shows, in words."""
        return (
            f"Kernel maps of layer {self.layer} before training and after epoch {self.epochs[self.moment]} "
            f"of {self.epochs[-1]}, on one logarithmic colour scale."
        )


def norm_levels(norms: Tensor, smallest: float, largest: float) -> bytes:
    """Norms on a logarithmic scale as one byte each: 0 exactly zero, 1 `smallest` or less, 255 `largest`.

    >>> list(norm_levels(torch.tensor([0.0, 1e-9, 1e-4, 1e-2, 1.0]), smallest=1e-4, largest=1.0))
    [0, 1, 1, 128, 255]
    """
    wide = norms.double().nan_to_num(0.0)
    share = (wide / smallest).clamp(min=1.0).log() / math.log(largest / smallest)
    levels = (1 + 254 * share.clamp(max=1.0)).round().masked_fill(wide == 0, 0)
    return levels.to(torch.uint8).cpu().numpy().tobytes()


def _places(snapshots: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Each layer's name, its channels, and where its first snapshot begins among all numbers.

    >>> _places({"a": torch.zeros(2, 4, 3), "b": torch.zeros(2, 5, 4)})[1]
    {'name': 'b', 'outputs': 5, 'inputs': 4, 'start': 24}
    """
    places, start = [], 0
    for name, norms in snapshots.items():
        places.append({"name": name, "outputs": norms.shape[1], "inputs": norms.shape[2], "start": start})
        start += norms.numel()
    return places


def layer_places(model: nn.Module) -> list[dict[str, Any]]:
    """Each layer's name, its channels, the weights of a kernel, and where its norms begin."""
    found, start = [], 0
    for layer in weight_layers(model):
        norms = kernel_norms(layer.weight.detach(), 1, layer.layout)
        outputs, inputs = norms.shape
        elements = layer.weight.numel() // norms.numel()
        found.append(
            {"name": layer.name, "outputs": outputs, "inputs": inputs, "start": start, "elements": elements}
        )
        start += norms.numel()
    return found


def plain_record(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Numbers as JSON takes them, which knows no NaN and no infinity: they become nothing."""
    return {key: _plain(value) for key, value in record.items()}


def _plain(value: Any) -> float | None:
    if isinstance(value, Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None
