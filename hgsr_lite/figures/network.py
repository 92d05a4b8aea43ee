"""A picture of a whole network, channel for channel: who is read, who is not, and who is gone."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor, nn

from hgsr_lite.figures.style import COLOR_MAP, ZERO_HATCH
from hgsr_lite.groups import Layout, kernel_stack

READING_NORMS = (1e-3, 100.0)
"""The ends of the one scale of all strips."""
_GONE = "#dddddd"


def reading_norm(module: nn.Module) -> Tensor:
    """For each input channel of a convolution or linear layer, the l1 norm of all weights that read it.

    `(input channels,)`, grouped or transposed as the layer may be; 0 exactly where it ignores the channel.

    >>> import torch
    >>> layer = nn.Conv2d(2, 2, 1, groups=2)
    >>> _ = layer.weight.data.copy_(torch.tensor([3.0, 0.0]).view(2, 1, 1, 1))
    >>> reading_norm(layer)
    tensor([3., 0.])
    """
    return kernel_stack(module.weight.detach(), Layout.of(module)).abs().sum((1, 3)).flatten()


def reading_norms(model: nn.Module) -> dict[str, Tensor]:
    """Layer name -> its `reading_norm`, for every convolution and linear layer.

    >>> import torch
    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 0.0]]))
    >>> reading_norms(nn.Sequential(layer))
    {'0': tensor([3., 0.])}
    """
    return {
        name: reading_norm(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear)
    }


def channel_strips(models: Mapping[str, nn.Module]) -> Figure:
    """Networks side by side, a row for each layer and a cell for each channel that it reads.

    Colour is the norm of the weights that read the channel, on a logarithmic scale that is the same in every
    figure; hatched cells are channels that the layer ignores. Every panel is as wide as the widest layer
    of all, so a removed channel leaves a grey gap at the right end of its row. Raises `ValueError` for a
    network without such layers.

    >>> figure = channel_strips({"before": nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))})
    >>> figure.axes[0].get_xlabel()
    'channel'
    """
    norms = {name: reading_norms(model) for name, model in models.items()}
    for name, layers in norms.items():
        if not layers:
            raise ValueError(f"the network {name!r} has no convolution or linear layer to draw")
    widest = max(len(row) for layers in norms.values() for row in layers.values())
    most = max(len(layers) for layers in norms.values())
    figure, grid = plt.subplots(
        1,
        len(norms),
        squeeze=False,
        layout="constrained",
        figsize=(1.5 + 4.2 * len(norms), 1.4 + 0.42 * most),
    )
    image = None
    for axes, (name, layers) in zip(grid[0], norms.items(), strict=True):
        image = axes.imshow(
            _table(layers, widest), norm=LogNorm(*READING_NORMS), cmap=_colors(), aspect="auto"
        )
        axes.set_facecolor(_GONE)
        _draw_dead(axes, layers)
        axes.set(title=name, xlabel="channel")
        axes.set_yticks(range(len(layers)), [f"{layer} ({len(row)})" for layer, row in layers.items()])
        axes.set_yticks(np.arange(len(layers) - 1) + 0.5, minor=True)
        axes.grid(which="minor", axis="y", color="white", linewidth=3)
        axes.tick_params(which="minor", length=0)
    figure.colorbar(image, ax=grid[0].tolist(), label="norm of its readers (l1);\nhatched: exactly 0")
    return figure


def _colors() -> plt.Colormap:
    return plt.get_cmap(COLOR_MAP).with_extremes(bad=(0, 0, 0, 0))


def _table(layers: Mapping[str, Tensor], widest: int) -> np.ma.MaskedArray:
    """Rows of clipped norms; masked where there is no channel, or where a channel is dead."""
    rows = np.zeros((len(layers), widest))
    for number, row in enumerate(layers.values()):
        rows[number, : len(row)] = row.float().cpu().numpy()
    return np.ma.clip(np.ma.masked_equal(rows, 0), *READING_NORMS)


def _draw_dead(axes: plt.Axes, layers: Mapping[str, Tensor]) -> None:
    for number, row in enumerate(layers.values()):
        for channel in (row == 0).nonzero().flatten().tolist():
            corner = (channel - 0.5, number - 0.5)
            hatched = {"facecolor": "white", "edgecolor": "0.55", "hatch": ZERO_HATCH, "linewidth": 0}
            axes.add_patch(plt.Rectangle(corner, 1, 1, **hatched))
