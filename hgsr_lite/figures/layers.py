"""One image on its way through a network: what every channel makes of it, and which channels are dead."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor, nn

from hgsr_lite.arguments import choose
from hgsr_lite.figures.network import reading_norm
from hgsr_lite.figures.style import ZERO_HATCH
from hgsr_lite.training import eval_mode

_ACROSS = 8  # feature maps side by side
_UNREAD = {"facecolor": "white", "edgecolor": "0.55", "hatch": ZERO_HATCH, "linewidth": 0}
_CONSTANT = {"fill": False, "edgecolor": "#D55E00", "linewidth": 1.2}


@torch.no_grad()
def feature_maps(model: nn.Module, image: Tensor, layers: Mapping[str, str]) -> dict[str, Tensor]:
    """What chosen modules put out for one image `(channels, height, width)`, as `(channels, height, width)`.

    `layers` maps a title to a module's name. Raises `ValueError` for a module that the model does not have.
    """
    modules, found = dict(model.named_modules()), {}
    hooks = [
        modules[choose("layer", name, modules)].register_forward_hook(
            lambda _module, _inputs, output, title=title: found.update({title: output[0].cpu()})
        )
        for title, name in layers.items()
    ]
    try:
        with eval_mode(model):
            model(image[None])
    finally:
        for hook in hooks:
            hook.remove()
    return {title: found[title] for title in layers}


def through_the_layers(
    models: Mapping[str, nn.Module], image: Tensor, layers: Mapping[str, str], readers: Mapping[str, str]
) -> Figure:
    """One image's feature maps in several networks: a row a network, a block of small maps a layer.

    `layers` maps titles to modules whose output is shown, `readers` the same titles to the convolution that
    reads that output (leave out a title whose reader is none). A channel that its reader ignores, all of
    its kernels exactly zero, is hatched; a channel that is the same at every position is framed in orange.
    Each map is drawn on its own grey scale from 0. A legend below says what the marks mean.

    >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> figure = through_the_layers({"net": model}, torch.rand(1, 8, 8), {"first": "1"}, {"first": "2"})
    >>> figure.axes[0].get_title()
    'the image'
    """
    size = {"figsize": (2.2 + 2.9 * len(layers), 0.5 + 2.7 * len(models)), "layout": "constrained"}
    figure, grid = plt.subplots(len(models), 1 + len(layers), squeeze=False, **size)
    for row, (name, model) in zip(grid, models.items(), strict=True):
        row[0].imshow(image[0].cpu().numpy(), cmap="gray")
        row[0].set(title="the image", ylabel=name, xticks=[], yticks=[])
        modules = dict(model.named_modules())
        for axes, (title, maps) in zip(row[1:], feature_maps(model, image, layers).items(), strict=True):
            ignored = [False] * len(maps)
            if title in readers:
                ignored = (reading_norm(modules[readers[title]]) == 0).tolist()
            _mosaic(axes, maps, ignored)
            axes.set(title=f"{title}: {len(maps)} channels", xticks=[], yticks=[])
    marks = [
        Patch(label="nobody reads it", **_UNREAD),
        Patch(label="the same at every position", **_CONSTANT),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=2)
    return figure


def _mosaic(axes: Axes, maps: Tensor, ignored: list[bool]) -> None:
    """Small maps in rows of eight, with a gap between them; dead ones marked."""
    height, width = maps.shape[1] + 1, maps.shape[2] + 1
    rows = -(-len(maps) // _ACROSS)
    canvas = torch.full((rows * height, _ACROSS * width), float("nan"))
    for number, one in enumerate(maps):
        top, left = number // _ACROSS * height, number % _ACROSS * width
        canvas[top : top + height - 1, left : left + width - 1] = one / one.max().clamp(min=1e-12)
    axes.imshow(canvas.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for number, one in enumerate(maps):
        corner = (number % _ACROSS * width - 0.5, number // _ACROSS * height - 0.5)
        if ignored[number]:
            axes.add_patch(plt.Rectangle(corner, width - 1, height - 1, **_UNREAD))
        if one.max() - one.min() < 1e-6:
            axes.add_patch(plt.Rectangle(corner, width - 1, height - 1, **_CONSTANT))
