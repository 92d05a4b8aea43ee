"""Pictures of weights and of runs: one scale a figure, labelled axes, colours that all readers see.

Every function returns the matplotlib `Figure` and leaves showing or saving it to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from hgsr_lite.arguments import choose
from hgsr_lite.figures.style import COLOR_MAP, MARKERS, ZERO_HATCH, color, label_the_ends
from hgsr_lite.groups import GROUPINGS, kernel_norms
from hgsr_lite.layers import weight_layers
from hgsr_lite.training import History

KERNEL_NORMS = (1e-4, 10.0)
"""The ends of the one scale of all kernel maps."""
_FLOOR = 1e-8


def kernel_map(
    maps: Mapping[str, Tensor] | Tensor,
    *,
    title: str = "",
    elements: int = 9,
    tolerance: float | None = 1e-3,
    limits: tuple[float, float] = KERNEL_NORMS,
    label: str = "kernel norm (l1)",
) -> Figure:
    """Kernel maps side by side on one logarithmic scale: a row an output, a column an input channel.

    `maps` is one `(output channels, input channels)` tensor or a mapping title -> tensor, such as
    `kernel_norms(weight)` gives. The scale is the same in every figure, from 1e-4 to 10; what lies outside
    `limits` takes the colour at that end. A kernel that is exactly zero is hatched in grey on white, which no
    colour of the scale resembles. The mark on the colour bar lies at `elements * tolerance`: a kernel whose
    `elements` weights are all below the tolerance, a dead one, is never brighter. `tolerance=None`
    leaves it out, for maps of something else than norms.

    >>> figure = kernel_map({"before": torch.rand(4, 3), "after": torch.zeros(4, 3)})
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['before', 'after']
    """
    named = maps if isinstance(maps, Mapping) else {"": maps}
    arrays = {name: _as_map(name, norms) for name, norms in named.items()}
    figure, grid = plt.subplots(
        1,
        len(arrays),
        squeeze=False,
        width_ratios=[max(array.shape[1], 4) for array in arrays.values()],
        layout="constrained",
        figsize=(min(11.0, 1.5 + 2.9 * len(arrays)), 3.4),
    )
    for axes, (name, array) in zip(grid[0], arrays.items(), strict=True):
        image = draw_map(axes, array, limits)
        axes.set(title=name, xlabel="input channel")
        _whole_ticks(axes, len(arrays))
    grid[0][0].set(ylabel="output channel")
    bar = figure.colorbar(image, ax=grid[0].tolist(), label=f"{label}; hatched: exactly 0", extend="both")
    if tolerance is not None:
        mark_dead(bar, elements * tolerance)
    figure.suptitle(title)
    return figure


def draw_map(axes: Axes, array: np.ndarray, limits: tuple[float, float] = KERNEL_NORMS) -> AxesImage:
    """Draw non-negative numbers on the one logarithmic scale; exact zeros show the hatched ground."""
    axes.patch.set(facecolor="white", edgecolor="0.55", hatch=ZERO_HATCH, linewidth=0)
    colors = plt.get_cmap(COLOR_MAP).with_extremes(bad=(0, 0, 0, 0))
    shown = np.ma.clip(np.ma.masked_equal(array, 0), *limits)
    return axes.imshow(shown, norm=LogNorm(*limits), cmap=colors, aspect="auto", interpolation="nearest")


def mark_dead(bar: Colorbar, threshold: float) -> None:
    """Mark on a colour bar the norm that no dead kernel exceeds."""
    bar.ax.axhline(threshold, color="white", linewidth=3)
    bar.ax.axhline(threshold, color="black", linewidth=1)
    bar.ax.annotate(
        "dead", (0, threshold), (-4, -3), bar.ax.get_yaxis_transform(), "offset points", ha="right", va="top"
    )


def model_kernel_maps(
    models: Mapping[str, nn.Module], layer: str, *, title: str = "", tolerance: float = 1e-3
) -> Figure:
    """The kernel maps of one layer in several models, for a before and after.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3))
    >>> model_kernel_maps({"dense": model, "sparse": model}, "0").axes[0].get_xlabel()
    'input channel'
    """
    maps = {}
    for name, model in models.items():
        found = {item.name: item for item in weight_layers(model)}
        chosen = found[choose("layer", layer, found)]
        maps[name] = kernel_norms(chosen.weight.detach(), 1, chosen.layout)
    elements = chosen.weight[0, 0].numel()
    return kernel_map(maps, title=title or f"layer {layer}", elements=elements, tolerance=tolerance)


def groups_over_epochs(history: History, layer: str, grouping: str = "feature") -> Figure:
    """The norm of every group of a layer, epoch by epoch: which channels live, which die.

    A group's norm here is the sum of its kernels' l1 norms; the axis is logarithmic and stops at 1e-8.
    All lines have one colour: which channel is which does not matter here, only where the bundle goes.
    """
    norms = history.snapshots[choose("layer", layer, history.snapshots)].float()
    sums = norms.sum(GROUPINGS[choose("grouping", grouping, GROUPINGS)])
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    lines = sums.clamp(min=_FLOOR).numpy()
    axes.plot(history.snapshot_epochs, lines, color=color(0), linewidth=1.0, alpha=0.5)
    channel = {"feature": "input", "neuron": "output"}[grouping]
    axes.set(
        yscale="log",
        xlabel="epoch",
        ylabel="group norm (sum of l1 kernel norms)",
        title=f"layer {layer}: one line for each {channel} channel",
    )
    _whole_epochs(axes)
    return figure


def training_curves(histories: Mapping[str, History]) -> Figure:
    """Validation accuracy and weights below tolerance over the epochs: a line a run, named at its end."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.4, 4.6), sharex=True, layout="constrained")
    ends: dict[str, float] = {}
    for number, (name, history) in enumerate(histories.items()):
        table = history.to_frame()
        style = {"color": color(number), "marker": MARKERS[number % len(MARKERS)], "markersize": 3}
        top.plot(table.index, 100 * table["validation accuracy"], **style)
        bottom.plot(table.index, 100 * table["below tolerance"], **style)
        ends[name] = 100 * table["below tolerance"].iloc[-1]
    top.set(ylabel="validation accuracy (%)")
    bottom.set(ylabel="weights below\ntolerance (%)", xlabel="epoch", ylim=(-3, 103))
    _whole_epochs(bottom)
    label_the_ends(bottom, ends, least_gap=0.12)
    return figure


def _as_map(name: str, norms: Tensor) -> np.ndarray:
    array = torch.as_tensor(norms).detach().float().cpu().numpy()
    if array.ndim != 2:
        raise ValueError(f"the kernel map {name!r} has shape {array.shape}: give (output, input channels)")
    return array


def _whole_epochs(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def _whole_ticks(axes: Axes, panels: int) -> None:
    """Channel numbers at round places, few enough not to touch each other in a narrow panel."""
    axes.xaxis.set_major_locator(MaxNLocator(8 if panels < 3 else 4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
