"""Where a step of shrinking takes two one-weight kernels: which of them become zero, from which start.

The planes are those of `norms`: the two kernels share a group, or each is alone in its own.
Every function that draws returns the matplotlib `Figure`, or draws into the axes it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from hgsr_lite.arguments import choose
from hgsr_lite.figures.norms import PLANES, cross, label_planes, plain, plane_panels, square
from hgsr_lite.figures.style import color
from hgsr_lite.penalties import Penalty

LANDINGS = ("neither is zero", "a is zero", "b or c is zero", "both are zero")
_LANDING_COLORS = ("#E8E8E8", color(5), color(4), "#1a1a1a")


def proximal_step(key: str, points: Tensor, step: float, plane: str = "same group") -> Tensor:
    """Where the proximal step of one penalty takes each point: (..., 2) to (..., 2).

    >>> proximal_step("l1", torch.tensor([[3., 0.5], [3., 2.]]), step=1.0)
    tensor([[2., 0.],
            [2., 1.]])
    """
    # Points side by side are groups of their own: one call for all of them.
    pairs = points.reshape(-1, 2)
    if choose("plane", plane, PLANES) == "same group":
        return Penalty(key).prox(pairs.T, step).T.reshape(points.shape)
    return Penalty(key).prox(pairs.reshape(1, -1), step).reshape(points.shape)


def landings(key: str, points: Tensor, step: float, plane: str = "same group") -> Tensor:
    """Which kernels a proximal step sets to zero: for points (..., 2) an index into `LANDINGS`, (...).

    >>> landings("l1", torch.tensor([[3., 0.5], [3., 2.], [0.5, 0.5]]), step=1.0)
    tensor([2, 0, 3])
    """
    zero = proximal_step(key, points, step, plane) == 0
    return zero[..., 0].long() + 2 * zero[..., 1].long()


def landing_maps(keys: Sequence[str], step: float, *, reach: float = 2.0, step_count: int = 121) -> Figure:
    """Which kernels one proximal step sets to zero, for every starting point: a row for each plane."""
    points = square(reach, step_count)
    figure, panels = plane_panels(keys, height=5.2)
    for axes, key, plane in panels:
        landing_map(axes, key, step, plane, points)
        if plane == "same group":
            axes.set_title(key)
    label_planes(panels)
    figure.legend(handles=landing_legend(), loc="outside lower center", ncols=4)
    return figure


def landing_map(axes: Axes, key: str, step: float, plane: str, points: Tensor) -> None:
    """Draw one plane of `landing_maps`; points is a square grid (n, n, 2)."""
    reached = landings(key, points, step, plane)
    axes.pcolormesh(
        *plain(points),
        reached.numpy(),
        cmap=ListedColormap(_LANDING_COLORS),
        vmin=-0.5,
        vmax=3.5,
        rasterized=True,
    )
    cross(axes, plane, float(points.max()))


def landing_legend() -> list[Patch]:
    """What the colours of `landing_map` mean."""
    named = zip(_LANDING_COLORS, LANDINGS, strict=True)
    return [Patch(facecolor=shade, edgecolor="grey", label=name) for shade, name in named]


def proximal_curves(functions: dict[str, Callable[[Tensor], Tensor]], reach: float = 2.0) -> Figure:
    """One line for each function of a single weight: the weight after a proximal step against before."""
    before = torch.linspace(-reach, reach, 801, dtype=torch.float64)
    figure, axes = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    axes.plot(before.numpy(), before.numpy(), color="grey", linewidth=0.8, linestyle=":", label="no step")
    for number, (name, function) in enumerate(functions.items()):
        after = function(before)
        # A jump is a jump, not a steep line.
        after = after.masked_fill(after.diff(prepend=after[:1]).abs() > 0.1, float("nan"))
        axes.plot(
            before.numpy(),
            after.numpy(),
            color=color(number),
            label=name,
            linestyle=("-", "--", "-.")[number % 3],
        )
    axes.set(xlabel="weight z before the step", ylabel="weight after the step")
    axes.legend()
    return figure
